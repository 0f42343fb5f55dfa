"""Makes files of results on request, corrects labels, and cuts regions out of images, in child processes."""
