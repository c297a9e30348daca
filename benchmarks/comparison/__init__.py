"""What changed between two runs: ratios with simultaneous intervals. Imports no torch."""
