"""Reads the fields of a job's hash as typed values (contract, section 1.3)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import TypeVar

from redis_consumer.errors import InvalidJob
from redis_consumer.text import decimal, quoted, whole

T = TypeVar("T")

#: Fields that a producer writes for every job, filled in or empty.
EMPTY_FIELDS = {
    "model_name": "",
    "model_version": "",
    "preprocess_function": "",
    "postprocess_function": "",
    "cuts": "0",
    "url": "",
    "label": "",
    "scale": "",
    "channels": "",
    "dimension_order": "",
}

#: Values of the field ``dimension_order`` that producers write. Longer ones have T, Z and other letters too. The first
#: of X and Y is the row axis of the array, whichever it is: producers use both orders with the same meaning.
DIMENSION_ORDERS = ("XY", "BXY", "CXY", "XYB", "XYC", "BXYC", "CXYB")
_AXES = frozenset("TCZYXB")

#: Values of the fields ``compartment`` and ``segmentation_type`` (contract, section 1.3).
COMPARTMENTS = ("whole-cell", "nuclear", "both")
SEGMENTATION_TYPES = ("none", "tissue", "cell culture")

#: Values of the field ``z`` besides the number of a plane, the default first.
Z_CHOICES = ("each", "max", "mean", "link")
_MOST_DIGITS = 8

#: Kinds of archives that can be read, for messages.
READABLE_ARCHIVES = "zip, tar or tar.gz"
_OTHER_ARCHIVES = (".7z", ".rar", ".xz", ".txz", ".bz2", ".tbz", ".tbz2", ".zst", ".tzst", ".lz4", ".lzma", ".tar.z")
_TAR_MAGIC_AT = 257
#: First bytes of a file that are needed to detect its kind.
PACKED_HEAD_BYTES = _TAR_MAGIC_AT + 5
_PACKED = (
    (b"\xfd7zXZ\0", "xz"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07", "rar"), (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4"), (b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip"),
)  # fmt: skip

#: Fields that a producer may write besides those of `EMPTY_FIELDS`.
_GIVEN_FIELDS = (
    "input_file_name", "original_name", "field_size", "field_of_view", "outputs", "compartment", "segmentation_type",
    "object_diameter_px", "scale_from", "scale_shared", "z",
)  # fmt: skip

#: Fields that record a job's progress (contract, section 1.3). They don't control how its input is processed.
OWN_FIELDS = frozenset(
    {
        "input_file_name", "original_name", "url", "status", "progress", "reason", "last_error", "timed_out",
        "failures", "warning", "parent", "next_phase", "children", "children:done", "children:failed",
        "children_upload_time", "total_jobs", "created_at", "updated_at", "finished_at", "updated_by",
        "identity_upload", "identity_started", "output_file_name", "output_url", "provenance_file_name",
        "input_digest", "predict_retries", "objects", "dim_order", "estimated_diameter_px", "quality", "axes_read",
        "channels_read", "owner", "batch", "again_of", "upload", "input_region", "labels_version",
    }
)  # fmt: skip

#: Most channels that a job can name. Each of them is copied.
MOST_CHANNELS = 64
#: Functions that a job may name before the model, and after it: each goes through all pixels.
MOST_FUNCTIONS = 64

#: Similarity, from 0 to 1, above which a name counts as a misspelling of another; most fields that are checked.
_NEAR, _MOST = 0.8, 100

# Limit of a folder's name, on disks and in buckets.
_LONGEST_NAME_BYTES = 255

# Form of a model server's version label.
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")

# TensorFlow Serving counts versions in 64 bits.
_HIGHEST_VERSION = 2**63 - 1


class JobStatus(str, Enum):
    """The progress of a job. Other programs use ``new``, ``done`` and ``failed``, and only display the others."""

    NEW = "new"
    STARTED = "started"
    PRE_PROCESSING = "pre-processing"
    PREDICTING = "predicting"
    POST_PROCESSING = "post-processing"
    SAVING_RESULTS = "saving-results"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value


FINAL_STATUSES = frozenset({JobStatus.DONE.value, JobStatus.FAILED.value})


@dataclass(frozen=True)
class ModelId:
    """Name and version of a model, as in the folder ``models/`` of the bucket.

    Attributes:
        name: folder name of the model.
        version: 1 or more; 0 means the latest that the model server has.
        label: the model server's name of the version, e.g. ``stable``, instead of the number; empty for none.
    """

    name: str
    version: int = 0
    label: str = ""

    @classmethod
    def parse(cls, text: str) -> ModelId:
        """Read ``name:version``, the form in which settings name a model.

        >>> str(ModelId.parse("NuclearSegmentation:6"))
        'NuclearSegmentation:6'

        Raises:
            InvalidJob: the version is neither an integer nor a label, or the name is unsafe as a folder name.
        """
        name, _, version = text.partition(":")
        return cls.of(name, version)

    @classmethod
    def of(cls, name: str, version: str | int | None) -> ModelId:
        """Make a model id from the texts of a job. An empty version, one below 1 or ``latest`` means the latest."""
        _check_name(name)
        text = str(version or 0).strip()
        if _LABEL.fullmatch(text):
            return cls(name, label="" if text.lower() == "latest" else text)
        return cls.numbered(name, text)

    @classmethod
    def numbered(cls, name: str, version: str | int | None) -> ModelId:
        """Make a model id like `of`, but only from a number, as older methods do (contract, section 6)."""
        _check_name(name)
        try:
            number = whole(str(version or 0))
        except ValueError as error:
            raise InvalidJob(
                f"field model_version: {quoted(str(version))} is neither a whole number nor a label; "
                "give e.g. 1, or 0 for the latest",
                model=name,
            ) from error
        if number > _HIGHEST_VERSION:
            raise InvalidJob(
                f"field model_version: is above {_HIGHEST_VERSION}; give e.g. 1, or 0 for the latest", model=name
            )
        return cls(name, max(number, 0))

    def __str__(self) -> str:
        return f"{self.name}:{self.label or self.version}"


def packed_as(head: bytes) -> str:
    """Detect the kind of archive or compressed file from the first bytes of a file; empty if it isn't one.

    >>> packed_as(b"7z\\xbc\\xaf\\x27\\x1c")
    '7z'
    """
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return "tar"
    return next((kind for magic, kind in _PACKED if head.startswith(magic)), "")


def unreadable_archive(name: str) -> str:
    """Make the message for a name with the suffix of an archive that can't be read; empty for all other names."""
    is_other = name.lower().endswith(_OTHER_ARCHIVES)
    return f"{name}: archives of this kind can't be read; pack it as {READABLE_ARCHIVES}" if is_other else ""


def inherited(job: Job) -> dict[str, str]:
    """Return the fields of a job that also apply to its children, such as model and scale."""
    return {name: text for name, text in job.fields.items() if name not in OWN_FIELDS and not name.endswith("_time")}


def found_earlier(job: Job) -> dict[str, str]:
    """Return the scale that an earlier attempt of a job has found and where it comes from; empty if there is none.

    A child job was given the scale that its parent has written.
    """
    if job.get("scale_from") in ("", "job") or job.get("parent"):
        return {}
    return {name: job.get(name) for name in ("scale", "scale_from", "estimated_diameter_px") if job.get(name)}


def given_by_producer(job: Job) -> dict[str, str]:
    """Return `inherited` without what an earlier attempt of the job has found, see `found_earlier`."""
    found = found_earlier(job)
    fields = {name: "" if name in found else text for name, text in inherited(job).items()}
    if not job.get("parent"):
        fields.pop("scale_from", None)
    return fields


def misspelt_fields(fields: Iterable[str], options: Iterable[str] = ()) -> dict[str, str]:
    """Find unknown fields whose names are similar to a field that a producer can write.

    >>> misspelt_fields(["modelname", "scale", "my_own"])
    {'modelname': 'model_name'}

    Args:
        fields: names of the fields of a job.
        options: names of further fields that the job's consumer reads.
    """
    given = {*EMPTY_FIELDS, *_GIVEN_FIELDS, *options}
    strange = [name for name in fields if name not in given | OWN_FIELDS and not name.endswith("_time")]
    near = {name: difflib.get_close_matches(name.lower(), sorted(given), n=1, cutoff=_NEAR) for name in strange[:_MOST]}
    return {name: found[0] for name, found in near.items() if found}


def unknown_field(name: str, near: str) -> str:
    """Make the message for an unknown field, with the field that may be meant."""
    return f"field {quoted(name)} is unknown; did you mean {near}?"


def is_dimension_order(text: str) -> bool:
    """Return whether a text names axes, in upper case: X, Y and some of T, C, Z and B, each once.

    >>> is_dimension_order("TCZYX"), is_dimension_order("CZ")
    (True, False)
    """
    return {"X", "Y"} <= set(text) <= _AXES and len(set(text)) == len(text)


def is_version(text: str) -> bool:
    """Return whether a text is a version of a model: a number, ``latest`` or another label."""
    return (text.isascii() and text.isdecimal()) or _LABEL.fullmatch(text) is not None


def _channel(text: str) -> int | str | None:
    try:
        return whole(text) if text else None
    except ValueError:
        return text


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or any(character in name for character in "/\\\0"):
        raise InvalidJob(f"field model_name: {quoted(name)} is no model name; give the name of a folder below models/")
    if len(name.encode(errors="replace")) > _LONGEST_NAME_BYTES:
        raise InvalidJob(
            f"field model_name: {quoted(name)} is longer than {_LONGEST_NAME_BYTES} bytes; "
            "give the name of a folder below models/"
        )


@dataclass(frozen=True)
class Job:
    """One unit of work: the key of its hash, and the fields of the hash when the job was claimed.

    Properties raise `InvalidJob`, which names the field, its value and the values that are allowed.

    Attributes:
        id: the key of the hash in Redis.
        fields: the texts of the hash.
        attempt: which run of the job this is, from 1.
    """

    id: str
    fields: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", MappingProxyType(dict(self.fields)))

    def get(self, name: str, default: str = "") -> str:
        """Return the text of a field, or `default` if the job doesn't have it."""
        return self.fields.get(name, default)

    def with_fields(self, **fields: str) -> Job:
        """Return the same job with other values of fields."""
        return replace(self, fields={**self.fields, **fields})

    def with_model(self, model: ModelId) -> Job:
        """Return the same job with another model."""
        return self.with_fields(model_name=model.name, model_version=model.label or str(model.version))

    @property
    def status(self) -> str:
        """The status of the job, see `JobStatus`."""
        return self.get("status")

    @property
    def is_final(self) -> bool:
        """Whether the job has already ended, with a result or a reason."""
        return self.status in FINAL_STATUSES

    @property
    def input_file_name(self) -> str:
        """Object key (or URL) of the input."""
        name = self.get("input_file_name").strip()
        if not name:
            raise InvalidJob("field input_file_name: missing; give the key of the uploaded file", job_id=self.id)
        return name

    @property
    def original_name(self) -> str:
        """Name of the input for users. If the job has none, the last part of the key."""
        return self.get("original_name") or self.input_file_name.rsplit("/", 1)[-1]

    @property
    def model(self) -> ModelId | None:
        """The model that the job names; None if ``model_name`` is empty."""
        name = self.get("model_name").strip()
        return ModelId.of(name, self.get("model_version").strip()) if name else None

    @property
    def scale(self) -> float | None:
        """Factor by which the image is resized before prediction; None if it is to be detected."""
        scale = self._number("scale", decimal, None, "a number above 0, e.g. 0.5")
        if scale is not None and scale <= 0:
            raise self._invalid("scale", "a number above 0, e.g. 0.5")
        return scale

    @property
    def object_diameter_px(self) -> float | None:
        """Usual diameter of the objects in the image in pixels; None if the producer doesn't know it."""
        diameter = self._number("object_diameter_px", decimal, None, "a number above 0, e.g. 24")
        if diameter is not None and diameter <= 0:
            raise self._invalid("object_diameter_px", "a number above 0, e.g. 24")
        return diameter

    @property
    def z(self) -> str | int:
        """One of `Z_CHOICES`, by which the planes of a z stack are processed, or the number of the only plane."""
        text = self.get("z").strip().lower() or Z_CHOICES[0]
        if text in Z_CHOICES:
            return text
        if text.isascii() and text.isdecimal() and len(text) < _MOST_DIGITS:
            return int(text)
        raise self._invalid("z", f"{', '.join(Z_CHOICES)}, or the number of a plane, from 0")

    @property
    def shares_scale(self) -> bool:
        """Whether all images of an archive have the scale of the first one."""
        text = self.get("scale_shared").strip().lower()
        if text not in ("", "0", "1", "false", "true", "no", "yes"):
            raise self._invalid("scale_shared", "1, or 0")
        return text in ("1", "true", "yes")

    @property
    def label(self) -> int | None:
        """Kind of image (index into the model choices); None if it is to be detected.

        ``99`` is what older tracking consumers write for "none" (contract, section 9).
        """
        label = self._number("label", whole, None, "0, 1, 2 or 3, or empty")
        return None if label == 99 else label

    @property
    def cuts(self) -> int:
        """Number of pieces into which a side is cut; 0 for the number that the model needs."""
        cuts = self._number("cuts", whole, 0, "a whole number, 0 for automatic")
        return max(cuts or 0, 0)

    @property
    def field_size(self) -> int:
        """Receptive field of the model in pixels, for jobs that set `cuts`."""
        size = self._number("field_size", whole, 61, "a whole number above 0")
        if size is None or size < 1:
            raise self._invalid("field_size", "a whole number above 0")
        return size

    @property
    def total_jobs(self) -> int:
        """Number of children of a divided job; 0 for other jobs."""
        return self._number("total_jobs", whole, 0, "a whole number") or 0

    @property
    def channels(self) -> tuple[int | str | None, ...] | None:
        """Index or name of the image's channel for each role of the model; None for a role without a channel.

        ``"0,"`` gives ``(0, None)``, ``"DAPI"`` gives ``("DAPI",)``. If the field is absent or empty, the property is
        None.
        """
        text = self.get("channels").strip()
        if not text:
            return None
        count = text.count(",") + 1
        if count > MOST_CHANNELS:
            raise InvalidJob(
                f"field channels: names {count} channels, allowed are {MOST_CHANNELS}; "
                "give those that the model takes, e.g. 0,1",
                job_id=self.id,
            )
        return tuple(_channel(part.strip()) for part in text.split(","))

    @property
    def field_of_view(self) -> str:
        """Number of one of several images in a file, or its folder in a plate; empty for the only one."""
        return self.get("field_of_view").strip()

    @property
    def dimension_order(self) -> str:
        """Axes of the image in upper case, see `is_dimension_order`; empty to use those of the file."""
        order = self.get("dimension_order").strip().upper()
        if order and not is_dimension_order(order):
            raise self._invalid("dimension_order", f"one of {' '.join(DIMENSION_ORDERS)}, axes as TCZYX, or empty")
        return order

    @property
    def compartment(self) -> str:
        """What is segmented in images of several stains, one of `COMPARTMENTS`; empty for the worker's default."""
        return self._one_of("compartment", COMPARTMENTS)

    @property
    def segmentation_type(self) -> str:
        """How cells are segmented for their spots, one of `SEGMENTATION_TYPES`; empty for the default."""
        return self._one_of("segmentation_type", SEGMENTATION_TYPES)

    @property
    def preprocess_functions(self) -> tuple[str, ...]:
        """Names of the functions to run before the model, in order."""
        return self._names("preprocess_function")

    @property
    def postprocess_functions(self) -> tuple[str, ...]:
        """Names of the functions to run after the model, in order."""
        return self._names("postprocess_function")

    def _one_of(self, name: str, values: Sequence[str]) -> str:
        text = self.get(name).strip().lower()
        if text and text not in values:
            raise self._invalid(name, f"one of {', '.join(values)}, or leave it empty")
        return text

    def _names(self, name: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in self.get(name).split(",") if part.strip())
        if len(names) > MOST_FUNCTIONS:
            raise InvalidJob(
                f"field {name}: names {len(names)} functions, allowed are {MOST_FUNCTIONS}; give each once, "
                "or register a function that does all of it",
                job_id=self.id,
            )
        return names

    def _number(self, name: str, read: Callable[[str], T], default: T | None, wanted: str) -> T | None:
        text = self.get(name).strip()
        if not text:
            return default
        try:
            return read(text)
        except ValueError as error:
            raise self._invalid(name, wanted) from error

    def _invalid(self, name: str, wanted: str) -> InvalidJob:
        return InvalidJob(f"field {name}: {quoted(self.get(name))} can't be read; give {wanted}", job_id=self.id)


@dataclass(frozen=True)
class OrphanedResult:
    """A run whose objects can be removed.

    Attributes:
        job: the job, with the attempt of that run.
        visible: ``output_file_name`` of the visible result; empty for none.
        record: ``provenance_file_name`` of the visible result; empty for none.
    """

    job: Job
    visible: str
    record: str = ""
