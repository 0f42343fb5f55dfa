"""Reads movies, links their cells by a model, and writes the tracks."""
