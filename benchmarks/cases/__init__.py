"""The kinds of benchmark, a file each: options, grid, execution, outcome line, forecast. Imports no torch."""
