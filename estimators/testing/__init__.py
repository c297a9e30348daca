"""The conformance suite: what every estimator must satisfy, for the tests of plugin authors.

In a test file::

    import pytest
    from elbograd.estimators.testing import estimator_checks

    @pytest.mark.parametrize("check", estimator_checks("my_idea.py"), ids=str)
    def test_my_idea(check):
        check()

or, all at once, ``check_estimator("my_idea.py")``.

The checks run on CPU (and `device` on a GPU where there is one) with a diagonal Gaussian, a Bernoulli and
two one-hot categorical posteriors, as far as the estimator supports them. Claims that are not made are not
checked: `unbiased` only where it is declared and ``objective`` is "elbo", `derivatives` only where it is 0,
`kl-weight` only where `weighs_kl` is, and a name that is not listed did not run. S is each of the first four
that the estimator supports. Under the discrete posteriors `off-support` adds to log p(x|z) what is zero on
the support alone: where the estimator neither differentiates log p(x|z) nor evaluates it off the support
nothing may change by a bit, and otherwise the mean stays (`unbiased-off-support`) unless
`depends_off_support` says that it may not.

Some checks see the random numbers themselves and give them to a second call: the same entries in batches of
other shapes (`shape-of-batch`), a datum in batches of 1, 2, 3, 4, 9, 33 and 257 (`size-of-batch`) and the
estimate in float32 (`float32`) must agree entry by entry, at every S, in training mode too. Nothing is
compared where such numbers cannot be told from one another: where they are not torch's, or the second call
asks for others.

Seeds are fixed, so that one version of torch gives one answer. For a correct estimator the chance that any
check fails by bad luck is at most 97 looks × 1e-5 = 9.7e-4. A bias shows when it exceeds about 5 standard
errors at 16384 draws; `elbograd certify` bounds smaller ones.
"""

from .check import Check, check_estimator, estimator_checks

__all__ = ["Check", "check_estimator", "estimator_checks"]
