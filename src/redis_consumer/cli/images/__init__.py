"""Commands for images: submit jobs, look at them, cancel and reproduce them."""
