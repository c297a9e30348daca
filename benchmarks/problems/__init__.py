"""What is measured on: the shared VAE, problems with known answers, and a user's own model."""

import lazy_loader

# The names are listed once, in __init__.pyi, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
