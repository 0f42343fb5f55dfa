"""Speaks to servers of the Open Inference Protocol v2."""
