"""Loads what decoders usually need. Each of them is a fork of a process that has imported this module."""

import imagecodecs
import tifffile
from PIL import Image, PngImagePlugin

from redis_consumer.images import ome_zarr, tiff_planes
from redis_consumer.web.view import making

#: Modules that are loaded late elsewhere.
LOADED = (Image, PngImagePlugin, making, ome_zarr, tiff_planes, tifffile)

# The library loads a codec at its first use.
imagecodecs.deflate_decode(imagecodecs.deflate_encode(b"0", 1))
