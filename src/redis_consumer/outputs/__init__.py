"""Writes what a job asks for in its field ``outputs``: labels, ROIs, polygons, tables of cells and pictures."""
