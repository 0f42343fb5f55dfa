"""Writes what a job asks for in its field ``outputs``: labels, ROIs, polygons, tables of cells and pictures."""

from __future__ import annotations

#: Ends of the names of the files, by output.
ENDINGS = {
    "labels": "_labels.tif",
    "ome": "_labels.ome.tif",
    "rois": "_rois.zip",
    "geojson": ".geojson",
    "table": "_cells.csv",
    "parquet": "_cells.parquet",
    "overlay": "_overlay.png",
}
