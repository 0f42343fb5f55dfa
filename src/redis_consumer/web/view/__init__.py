"""Makes and serves what the page shows of an image and its result: tiles of several sizes, points and facts."""
