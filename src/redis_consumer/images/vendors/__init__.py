"""Reads files of microscopes' own programs."""
