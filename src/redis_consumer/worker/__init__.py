"""Runs a worker: a supervisor process, and slot processes that run the jobs."""
