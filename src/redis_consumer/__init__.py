"""Workers that turn microscopy images in a bucket into label images, at the scale of a Redis queue."""

__version__ = "1.0.0.dev0"
