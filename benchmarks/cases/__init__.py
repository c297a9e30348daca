"""One file for each kind of benchmark: its options, its grid, its execution, its outcome line."""
