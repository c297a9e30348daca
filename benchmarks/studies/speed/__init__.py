"""How fast the suite itself is: against the machine's matrix product, and against steps written by hand."""
