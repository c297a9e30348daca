"""The peers benchmark: this suite against a plain PyTorch loop, Pyro and Storchastic, at equal precision.

``python -m elbograd.benchmarks.studies.peers`` (``tox -e peers``) runs it. Every contender lives in a process
of its own, since Storchastic patches torch globally; only one of them works at a time.
"""
