"""Converts images to other file formats, without a model."""

from __future__ import annotations

import io
from typing import Annotated, Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import Field

from redis_consumer.consumers import Analysis, ConsumerOptions, ImageFileConsumer, per_job
from redis_consumer.job import Job


class FormatConverter(ImageFileConsumer):
    """Converts images of any format that workers read to OME-TIFF, ImageJ TIFF or NPY."""

    class Options(ConsumerOptions):
        """Set by variables of the operator. A job can also set a `per_job` option."""

        target: Annotated[Literal["ome.tif", "imagej.tif", "npy"], per_job] = Field(
            default="ome.tif", description="Format of the result"
        )

    def analyze(self, image: NDArray[Any], job: Job) -> Analysis:  # noqa: ARG002
        """Write the image, with 8 or 16 bits if all pixel values fit."""
        return {f"converted.{self.options.target}": WRITERS[self.options.target](smallest(image))}


def smallest(image: NDArray[Any]) -> NDArray[Any]:
    """Convert to uint8 or uint16 if this keeps all pixel values; otherwise leave the image as it is."""
    for dtype in (np.uint8, np.uint16):
        kept = image.astype(dtype)
        if np.array_equal(kept, image):
            return kept
    return image


def to_ome(image: NDArray[Any]) -> bytes:
    """(B, Y, X, C) as OME-TIFF, in which frames are time points."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.moveaxis(image, -1, 1), ome=True, metadata={"axes": "TCYX"}, photometric="minisblack")
    return file.getvalue()


def to_imagej(image: NDArray[Any]) -> bytes:
    """(B, Y, X, C) as a hyperstack of ImageJ."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.moveaxis(image, -1, 1), imagej=True, metadata={"axes": "TCYX"})
    return file.getvalue()


def to_npy(image: NDArray[Any]) -> bytes:
    """(B, Y, X, C) as numpy's own file."""
    file = io.BytesIO()
    np.save(file, image, allow_pickle=False)
    return file.getvalue()


WRITERS = {"ome.tif": to_ome, "imagej.tif": to_imagej, "npy": to_npy}
