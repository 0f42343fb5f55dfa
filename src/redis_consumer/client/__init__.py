"""Submits jobs, waits for their results and reads the state of queues. It prints nothing."""
