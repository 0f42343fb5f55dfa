"""Runs models and functions over images: plans, prepares, predicts, post-processes and restores."""
