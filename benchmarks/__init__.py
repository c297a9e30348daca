"""Measuring ELBO-gradient estimators: variance, bias, correctness, convergence and throughput.

Importing this package does not import torch; the first use of a name does.
"""

import lazy_loader

# The names are listed once, in __init__.pyi, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
