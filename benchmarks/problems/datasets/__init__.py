"""Data sets of images by name: what they are, where they lie, how they are read, fetched and binarized."""
