"""Runs a finished job again from its provenance record and compares the results."""
