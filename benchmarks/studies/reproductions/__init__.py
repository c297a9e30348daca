"""Published results rerun: each a setting, a measurement with intervals, and claims that hold or fail."""
