"""The estimators: each file one, its name that of the catalogue."""
