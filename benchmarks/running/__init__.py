"""Running cases: the plan, the runner, progress, forecasts, executors."""
