"""Certified estimators: claims tested against exact answers, with a stated false-alarm rate."""
