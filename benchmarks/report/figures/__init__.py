"""The page's interactive figures, made with plotly. One idea a module, each with ``section(runs)``."""
