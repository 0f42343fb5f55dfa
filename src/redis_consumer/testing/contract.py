"""Does a consumer keep the promises that all consumers make? An author derives a test class and gets the checks free."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from redis_consumer.consumers.base import Consumer, Outcome
from redis_consumer.errors import ModelServerUnavailable
from redis_consumer.job import FINAL_STATUSES, JobStatus
from redis_consumer.testing.images import example_image, fake_model
from redis_consumer.testing.inputs import Input, uploaded
from redis_consumer.testing.job_run import JobRun
from redis_consumer.testing.models import Model
from redis_consumer.testing.workbench import Workbench

if TYPE_CHECKING:
    from redis_consumer.images.image import Array

_ORDER = [status.value for status in JobStatus]
_REASON = re.compile(r"\w+: \S.*")
_MACHINE_PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/'\"]+/)+[^\s/'\"]+")
#: What isn't what most consumers take: bytes by a name for the file.
_BAD_INPUTS = {
    "garbage.tif": bytes(range(7, 256)) * 8,
    "empty.tif": b"",
    "cut.tif": b"II*\0\x08\0\0\0\x05\0",
    "notes.txt": b"This is no image.\n",
}


class ConsumerContract:
    """Checks of one consumer. Derive a class whose name starts with ``Test`` and name the consumer in it.

    Attributes:
        consumer: the class.
        image: an input that it can do its work on, as `redis_consumer.testing.run` takes it.
        model: as `run` takes it.
        job_fields: fields of the job, besides those that every job has.
        children: as `run` takes it.
        bad_inputs: files that it can't work on, bytes by name; leave out those that it can.
        own_statuses: that it writes besides those of `JobStatus`, in any order.
    """

    consumer: ClassVar[type[Consumer]]
    image: ClassVar[Input] = example_image()
    model: ClassVar[Any] = fake_model
    job_fields: ClassVar[Mapping[str, object]] = {}
    children: ClassVar[Mapping[str, type[Consumer] | str]] = {}
    bad_inputs: ClassVar[Mapping[str, bytes]] = _BAD_INPUTS
    own_statuses: ClassVar[Sequence[str]] = ()
