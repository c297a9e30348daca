"""The level of certification's tests, and the coverage of its bias bounds, by simulation."""
