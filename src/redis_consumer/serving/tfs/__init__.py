"""Speaks to TensorFlow Serving."""
