"""Which estimator to use on a model: measured, ranked, and said in a sentence."""
