"""Chooses one scale for all child jobs of a movie or an archive, as the worker of an image would choose it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.image import ImageFileConsumer
from redis_consumer.job import Job
from redis_consumer.segmentation.frames import Frames, open_frames
from redis_consumer.segmentation.large_image import looked_at
from redis_consumer.segmentation.scale import FROM_DETECTION, ScaleChoice

#: Fields that tell child jobs their scale.
FIELDS = ("scale", "scale_from", "estimated_diameter_px")


class SharedScale:
    """Chooses the scale of a divided job.

    Args:
        parent: the consumer that divides it.
        job: fields as its child jobs have them.
        parts: a model server and a source of models that are open already, by the arguments of the image consumer.
    """

    def __init__(self, parent: Consumer, job: Job, **parts: Any) -> None:
        self._consumer = ImageFileConsumer(parent.redis, parent.storage, parent.queue, **parts)
        self._job = job
        self._is_own = not parts

    def of_frames(self, frames: Frames) -> dict[str, str]:
        """Return the fields that tell child jobs their scale; none if each of them chooses its own.

        Raises:
            InvalidJob, ModelNotFound, ModelServerUnavailable: as for an image.
        """
        noted: dict[str, str] = {}

        def note(_: str, fields: Mapping[str, Any]) -> None:
            noted.update({name: str(value) for name, value in fields.items()})

        def image_scale(scale: float | str | None, seen: Frames, _: str) -> float:
            detected = self._consumer._detected_scale(seen) if scale is None else None
            if detected is not None:
                note("", ScaleChoice(detected, FROM_DETECTION).fields)
            return float(scale or detected or 1)

        segmentation = self._consumer._segmentation()
        steps = replace(
            segmentation.steps,
            write=note,
            warn=lambda problem: note("", {"warning": problem}),
            image_scale=image_scale,
        )
        replace(segmentation, steps=steps).choose(frames, self._job)
        return {name: noted[name] for name in (*FIELDS, "warning") if name in noted}

    def of_file(self, path: Path) -> dict[str, str]:
        """The same for an image file.

        Raises:
            InvalidImage: it can't be read.
        """
        options = self._consumer._segmentation().options
        with open_frames(path, self._job, options.limits, takes_parts=True) as frames:
            if frames is not None:
                return self.of_frames(frames)
        with looked_at(path, self._job, options) as middle:
            return self.of_frames(middle)

    def close(self) -> None:
        """Give back the model server that was opened for this."""
        for part in ("model_server", "models") if self._is_own else ():
            if part in self._consumer.__dict__:
                self._consumer.__dict__[part].close()
