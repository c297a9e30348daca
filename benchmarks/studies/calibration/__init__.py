"""How often the intervals of `measure_variance` hold a variance that is known."""
