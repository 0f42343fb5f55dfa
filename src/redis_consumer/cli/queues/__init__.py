"""Commands for queues: look at them, and mend or empty them."""
