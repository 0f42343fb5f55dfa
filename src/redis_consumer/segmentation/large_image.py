"""Reads, segments and writes an image that is larger than memory, part by part.

Memory depends on the blocks that are processed at once, not on the size of the image. The job's folder on disk contains
the input, the tiles of the result (at most 4 bytes per pixel and channel; label images take about a fiftieth), the
files of the result and their zip.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images import check_frames
from redis_consumer.images.axes import as_read
from redis_consumer.images.channels import choose
from redis_consumer.images.ome_zarr import is_ome_zarr
from redis_consumer.images.planes import Window
from redis_consumer.images.scratch import TILE_PX, TileScratch
from redis_consumer.images.window_writing import TiledPlane, write_ome_zarr, write_tiled_tiff
from redis_consumer.images.windows import WindowedImage, open_windowed
from redis_consumer.job import MOST_CHANNELS, Job, JobStatus
from redis_consumer.options import ImageLimits
from redis_consumer.processing.blocks import Block, BlockGrid, plan_blocks
from redis_consumer.processing.registry import finds_objects
from redis_consumer.processing.resize import resize_image, scaled_sides
from redis_consumer.processing.whole_image import MAX_SAMPLE_PX, Change, Sampler, fit
from redis_consumer.segmentation.block_results import BlockResults
from redis_consumer.segmentation.cell_outputs import CellOutputs
from redis_consumer.segmentation.frames import HELD_TIMES, Frames, channels_of, check_needed
from redis_consumer.segmentation.options import SegmentationOptions
from redis_consumer.segmentation.plan import Plan
from redis_consumer.segmentation.segmentation import Segmentation, naming_image, restore
from redis_consumer.segmentation.z_planes import ProjectedImage, limits_of_planes, projection_of
from redis_consumer.serving.base import Array
from redis_consumer.text import shown_name

#: Side of a block at the model's pixel size. Its post-processing takes about 100 bytes per pixel.
BLOCK_PX = 2048
#: Overlap of neighbouring blocks at the model's pixel size. Cells up to this diameter are complete in one of them.
OVERLAP_PX = 128
#: Largest size of a block with its overlap, in float32 bytes. With many channels it has fewer pixels, down to the size
#: of its overlaps.
BLOCK_BYTES = 64 << 20
#: Largest size of a sample of the image, in bytes. With up to three channels it has `MAX_SAMPLE_PX`.
_SAMPLE_BYTES = 3 * 4 * MAX_SAMPLE_PX
#: A plane of more pixels is a mistake in its header.
MAX_PLANE_PX = 1 << 34
#: Sides of tiles in a TIFF are multiples of this.
_TILE_UNIT_PX = 16
#: Progress of the job in percent after its statistics, and after segmentation.
_STATISTICS, _SEGMENTATION = 8, 90


class LargeImage:
    """An image larger than memory, and its segmentation for one job.

    Args:
        segmentation: runs model and functions.
        job: the running job.
        image: the opened image.
        plan: what `Segmentation.choose` chose for it; None to choose.
        is_measured: whether the confidence of objects is asked for.

    Attributes:
        image: the opened image.
        tile_px: side of the tiles of the result.
    """

    def __init__(
        self,
        segmentation: Segmentation,
        job: Job,
        image: WindowedImage | ProjectedImage | _HeldImage,
        plan: Plan | None = None,
        *,
        is_measured: bool = False,
    ) -> None:
        self._job = job
        self._segmentation = segmentation
        self.image = image
        options = segmentation.options
        limits_yx = _sides(options.limits)
        self._plan = plan or segmentation.choose(_looked_at(image, limits_yx, options.max_job_bytes), job)
        if finds_objects(self._plan.postprocess):
            raise InvalidImage(
                f"{image.name}: is too large for function {self._plan.postprocess[0]}, whose model needs the whole "
                "image; crop the image, or give a smaller scale"
            )
        self._sizes = segmentation.size_check(self._plan, [] if is_measured else None)
        self._grid, self.tile_px = _layout(image.shape[1:], min(BLOCK_PX, *limits_yx), self._plan.scale)
        self._sample_px = min(MAX_SAMPLE_PX, _SAMPLE_BYTES // (4 * image.shape[3]))
        self._check_memory()

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know about the pixels that were read."""
        return self.image.notes

    def fit(self) -> list[Change]:
        """Compute the statistics for the functions before the model from each complete frame, at the file's pixel
        size.
        """
        frames, height, width, channels = self.image.shape
        self._segmentation.functions.note_all("pre", self._plan.preprocess, self._plan.options)
        changes = []
        for frame in range(frames):
            sampler = Sampler((height, width, channels), self._sample_px)
            for block in self._grid:
                sampler.add(block.core, self.image.read(frame, block.core))
                self._report(0, _STATISTICS, frame, block)
            changes.append(fit(self._plan.preprocess, sampler, self._plan.options, scale=self._plan.scale))
        return changes

    def segment(self, changes: list[Change], scratch: TileScratch) -> BlockResults:
        """Predict and post-process every block. The model processes the next blocks at the same time."""
        results = BlockResults(len(changes), self._grid, scratch, has_labels=bool(self._plan.postprocess))
        places = [(frame, block) for frame in range(len(changes)) for block in self._grid]
        prepared = (self._prepare(frame, block, changes[frame]) for frame, block in places)
        with (
            naming_image(self._job, self._plan.model),
            contextlib.closing(self._segmentation.predictor.predict_each(prepared, self._plan.model)) as predicted,
        ):
            for (frame, block), outputs in zip(places, predicted, strict=True):
                arrays = self._postprocess(outputs, block)
                results.add(frame, block, arrays, self._sizes.confidences.pop() if self._sizes.confidences else ())
                self._report(_STATISTICS, _SEGMENTATION, frame, block)
        self._segmentation.tell_sizes(self._job, self._sizes)
        return results

    def write(self, planes: list[TiledPlane], stem: Path, *, is_zarr: bool) -> list[Path]:
        """Write the planes as files ``<stem>_feature_<c>``."""
        files: list[Path] = []
        for index, plane in enumerate(planes):
            shown = replace(plane, tile=self._reporting(plane, index, len(planes)))
            path = stem.with_name(f"{stem.name}_feature_{index}.{'zarr' if is_zarr else 'tif'}")
            files += write_ome_zarr(shown, path) if is_zarr else write_tiled_tiff(shown, path)
        return files

    def _check_memory(self) -> None:
        """Refuse an image if even one block needs more memory than a job is allowed, before its pixels are read."""
        _, height, width, channels = self.image.shape
        block_yx = max((block.shape_yx for block in self._grid), key=math.prod)
        scaled_yx = scaled_sides(block_yx, self._plan.scale)
        pixels = max(math.prod(block_yx), math.prod(scaled_yx))
        held = 4 * channels * max(pixels, min(self._sample_px, height * width))
        call = self._segmentation.predictor.call_bytes_of(
            self._plan.model, (1, scaled_yx[0], scaled_yx[1], channels), is_known=self._segmentation.steps.is_known
        )
        check_needed(
            self.image.name,
            HELD_TIMES * held + call,
            self._segmentation.options.max_job_bytes,
            f"{HELD_TIMES} x {held / 1e6:.1f} MB for a block with {channels} channel(s), {call / 1e6:.0f} MB for a "
            "call of the model",
        )

    def _prepare(self, frame: int, block: Block, change: Change) -> Array:
        part: Array = self.image.read(frame, block.window)
        if self._plan.scale != 1:
            part = resize_image(part, scaled_sides(block.shape_yx, self._plan.scale))
        return change(part, block.window)

    def _postprocess(self, outputs: list[Array], block: Block) -> list[Array]:
        results = self._segmentation.steps.run_functions("post", self._plan.postprocess, outputs, self._plan.options)
        is_measured = self._sizes.confidences is not None
        self._sizes.add(results, outputs, self._segmentation.peaks_of(self._plan, outputs) if is_measured else ())
        arrays = [results] if isinstance(results, np.ndarray) else list(results)
        return [restore(array, block.shape_yx, self._plan.postprocess) for array in arrays]

    def _report(self, first: int, last: int, frame: int, block: Block) -> None:
        done, total = frame * len(self._grid) + block.index + 1, self.image.shape[0] * len(self._grid)
        self._segmentation.predictor.report(first * total + (last - first) * done, 100 * total)

    def _reporting(self, plane: TiledPlane, index: int, count: int) -> Callable[[int, int, int], Array]:
        frames, height, _ = plane.shape

        def tile(frame: int, row: int, column: int) -> Array:
            rows, total = (index * frames + frame) * height + row * plane.tile_px, count * frames * height
            self._segmentation.predictor.report(_SEGMENTATION * total + (100 - _SEGMENTATION) * rows, 100 * total)
            return plane.tile(frame, row, column)

        return tile


@contextmanager
def open_large(
    path: Path, job: Job, limits: ImageLimits, *, takes: int | None = None, is_required: bool = False
) -> Iterator[WindowedImage | ProjectedImage]:
    """Open the image of a job to read it part by part, see `redis_consumer.images.windows.open_windowed`.

    Args:
        path: the downloaded file, or the folder of an OME-Zarr.
        job: names the axes and channels.
        limits: the number of frames.
        takes: as for `redis_consumer.images.channels.choose`.
        is_required: as for `choose`.

    Yields:
        The image with the channels for its model.
    """
    name, named = shown_name(job.original_name), channels_of(job)
    with open_windowed(
        path,
        name=name,
        dimension_order=job.dimension_order,
        max_frames=limits_of_planes(job, limits).max_frames,
        max_plane_px=MAX_PLANE_PX,
        field=job.field_of_view,
    ) as image:
        choice = choose(named, image.channels, name, takes=takes, is_required=is_required)
        if len(choice.picks) > MOST_CHANNELS:
            raise InvalidImage(
                f"{name}: {len(choice.picks)} channels are too many to be read in parts, allowed are {MOST_CHANNELS}; "
                f"name those to use in field channels, e.g. 0 {as_read(image.reading)}"
            )
        if choice.seen:
            choice = choice.decided(image.seen(choice.seen), name)
        image = image.picked(choice.picks, choice.text)
        projection = projection_of(job, image.calibration, image.shape[0], name, image.reading)
        frames = image if projection is None else ProjectedImage(image, projection)
        check_frames(frames.shape[0], limits.max_frames, name, image.reading)
        yield frames


def segment_large(
    segmentation: Segmentation, job: Job, begin: Callable[..., None], path: Path, outputs: CellOutputs
) -> tuple[list[Path], dict[str, int]]:
    """Run a job up to the files of its result, with the same stages as for an image in memory, block by block.

    Args:
        segmentation: runs model and functions.
        job: the running job.
        begin: starts a stage, see `Stages.begin`.
        path: the downloaded image.
        outputs: the additional files of the job.

    Returns:
        The files of the result, below ``outputs.results``: TIFFs, or an OME-Zarr for each channel if the input is
        one, and those of the job's ``outputs``. The field ``objects`` if the result has labels.

    Raises:
        InvalidImage, InvalidJob, ModelMismatch: as for an image in memory.
        PermanentError: the result has more labels than its files can number.
    """
    options = segmentation.options
    takes, is_required = segmentation.channels_taken(job), options.requires_channels
    with open_large(path, job, options.limits, takes=takes, is_required=is_required) as image:
        segmentation.steps.write(job.id, {"axes_read": image.reading, "channels_read": image.channels_read})
        begin(JobStatus.PRE_PROCESSING, ended="download_time")
        large = LargeImage(segmentation, job, image, is_measured=outputs.confidences is not None)
        return _segment(large, segmentation, begin, outputs, image.unpicked(), is_zarr=is_ome_zarr(path))


def segment_enlarged(
    segmentation: Segmentation,
    job: Job,
    begin: Callable[..., None],
    frames: Frames,
    plan: Plan,
    outputs: CellOutputs,
) -> tuple[list[Path], dict[str, int]]:
    """Run a job like `segment_large` for an image that is too large for memory only at the scale of its plan."""
    is_measured = outputs.confidences is not None
    large = LargeImage(segmentation, job, _HeldImage(frames), plan, is_measured=is_measured)
    with outputs.all_channels(frames) as whole:
        return _segment(large, segmentation, begin, outputs, _HeldImage(whole or frames), is_zarr=False)


def _segment(
    large: LargeImage,
    segmentation: Segmentation,
    begin: Callable[..., None],
    outputs: CellOutputs,
    whole: WindowedImage | ProjectedImage | _HeldImage,
    *,
    is_zarr: bool,
) -> tuple[list[Path], dict[str, int]]:
    with segmentation.predictor.state.by_card():
        changes = large.fit()
        begin(JobStatus.PREDICTING, ended="preprocess_time")
        with TileScratch(outputs.folder / "tiles", large.tile_px) as scratch:
            results = large.segment(changes, scratch)
            begin(JobStatus.POST_PROCESSING, ended="prediction_time")
            for note in large.notes:
                segmentation.steps.warn(note)
            planes = results.planes(large.image.calibration)
            begin(JobStatus.SAVING_RESULTS, ended="postprocess_time")
            if outputs.confidences is not None:
                outputs.confidences += results.confidences
            files = large.write(planes, outputs.stem, is_zarr=is_zarr)
            files += outputs.write_planes(planes, large.image, whole)
            return files, {} if results.objects is None else {"objects": results.objects}


class _HeldImage:
    """An image whose frames fit into memory. Of many frames, one is held."""

    def __init__(self, frames: Frames) -> None:
        self.shape, self.name, self.notes = frames.shape, frames.name, frames.notes
        self.pixel_size_um, self.pixel_yx_um = frames.pixel_size_um, frames.pixel_yx_um
        self.calibration = frames.calibration
        self._frames = frames
        self._held: tuple[int, Array] | None = None

    def read(self, frame: int, window: Window) -> Array:
        """Read a part of one frame, (1, y, x, C) float32."""
        if self._held is None or self._held[0] != frame:
            self._held = (frame, self._frames.read(frame, frame + 1))
        return self._held[1][:, window[0], window[1]]


def _layout(shape: tuple[int, int, int], block_px: int, scale: float) -> tuple[BlockGrid, int]:
    """Return the blocks of an image, in its own pixels, and the side of the tiles of its result."""
    # If the image is reduced for the model, a block of the model's size could be a hundred times larger in the file.
    core_px, overlap_px = max(int(block_px / max(scale, 0.5)), _TILE_UNIT_PX), int(np.ceil(OVERLAP_PX / scale))
    height, width, channels = shape
    largest_px = int(math.isqrt(BLOCK_BYTES // (4 * channels)) / max(scale, 1.0)) - 2 * overlap_px
    core_px = min(core_px, max(largest_px, 2 * overlap_px, _TILE_UNIT_PX))
    tile_px = min(TILE_PX, core_px // _TILE_UNIT_PX * _TILE_UNIT_PX)
    return plan_blocks((height, width), core_px, overlap_px, tile_px), tile_px


@contextlib.contextmanager
def looked_at(path: Path, job: Job, options: SegmentationOptions) -> Iterator[Frames]:
    """Open the middle of an image that is larger than memory, as much as fits into memory."""
    with open_large(path, job, options.limits) as image:
        yield _looked_at(image, _sides(options.limits), options.max_job_bytes)


def _looked_at(
    image: WindowedImage | ProjectedImage | _HeldImage, limits_yx: tuple[int, int], max_job_bytes: int
) -> Frames:
    """Return the middle of the image for detection, as much as fits into memory. It is read only if something is
    detected.
    """
    window = _middle(image.shape[1:3], limits_yx)
    height, width = (side.stop - side.start for side in window)
    middle = 4 * height * width * image.shape[3]

    def read(start: int, stop: int) -> Array:
        why = f"3 x {middle / 1e6:.1f} MB for the middle of the image, at which detection looks"
        check_needed(image.name, 3 * middle, max_job_bytes, why)
        return image.read(0, window)[start:stop]

    shape = (1, height, width, image.shape[3])
    return Frames(shape, read, image.name, pixel_size_um=image.pixel_size_um, pixel_yx_um=image.pixel_yx_um)


def _sides(limits: ImageLimits) -> tuple[int, int]:
    return limits.max_height or BLOCK_PX, limits.max_width or BLOCK_PX


def _middle(shape_yx: tuple[int, int], limits_yx: tuple[int, int]) -> tuple[slice, slice]:
    rows, columns = (
        slice((side - min(side, limit)) // 2, (side + min(side, limit)) // 2)
        for side, limit in zip(shape_yx, limits_yx, strict=True)
    )
    return rows, columns
