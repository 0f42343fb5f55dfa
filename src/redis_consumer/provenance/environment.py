"""Describes the software, libraries, settings and functions that made a result."""

from __future__ import annotations

import inspect
import json
import platform
import sys
from collections.abc import Hashable, Mapping
from functools import cache
from importlib import metadata
from typing import Any

import redis_consumer
from redis_consumer.digest import file_digest

DISTRIBUTION = "kiosk-redis-consumer"
#: Distributions whose version can change a pixel, because they read, compute or write it.
LIBRARIES = (
    "numpy", "scipy", "scikit-image", "tifffile", "imagecodecs", "pillow", "tensorstore", "onnxruntime", "grpcio",
    "protobuf",
)  # fmt: skip
#: Settings that can change a pixel. Everyone who can read a result can read its record, so it has no addresses and
#: secrets. It also has no limits that protect a machine, because the record of another user must not change the limits
#: of a rerun.
SETTINGS = (
    "TF_TENSOR_NAME", "TF_MAX_BATCH_SIZE", "TF_MIN_MODEL_SIZE", "MAX_CALL_BYTES",
    "NUCLEAR_MODEL", "CYTOPLASM_MODEL", "PHASE_MODEL",
    "NUCLEAR_POSTPROCESS", "CYTOPLASM_POSTPROCESS", "PHASE_POSTPROCESS",
    "SCALE_DETECT_ENABLED", "SCALE_DETECT_MODEL", "SCALE_DETECT_SAMPLE", "SCALE_RESHAPE_SIZE",
    "LABEL_DETECT_ENABLED", "LABEL_DETECT_MODEL", "LABEL_DETECT_SAMPLE", "LABEL_RESHAPE_SIZE",
    "MAX_SCALE", "MIN_SCALE", "MAX_IMAGE_HEIGHT", "MAX_IMAGE_WIDTH", "MAX_IMAGE_FRAMES", "CUTS",
    "TRACKING_MODEL", "TRACKING_SEGMENT_MODEL", "TRACKING_POSTPROCESS_FUNCTION", "DRIFT_CORRECT_ENABLED",
    "NORMALIZE_TRACKING", "NEIGHBORHOOD_SCALE_SIZE", "MAX_DISTANCE", "TRACK_LENGTH", "DIVISION", "BIRTH", "DEATH",
    "CALIBAN_MODEL", "NEIGHBORHOOD_ENCODER", "APPEARANCE_DIM", "CROP_MODE", "CALIBAN_NORM",
    "MESMER_MODEL", "MESMER_COMPARTMENT", "POLARIS_MODEL", "POLARIS_THRESHOLD", "POLARIS_CLIP", "POLARIS_SCALE",
)  # fmt: skip

#: Settings that also have an effect by being set.
DECIDE_BY_BEING_GIVEN = frozenset({"TRACKING_MODEL", "CALIBAN_MODEL", "TRACKING_SEGMENT_MODEL"})


@cache
def software() -> dict[str, Any]:
    """Return the versions of this package, of Python and of the libraries, and the commit if it is known."""
    return {
        "name": DISTRIBUTION,
        "version": redis_consumer.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


@cache
def origin(thing: Hashable, group: str = "") -> dict[str, Any]:
    """Describe the origin of a class or function.

    Args:
        thing: a class or a function.
        group: group of entry points that can contain it.

    Returns:
        ``origin``, its import path; ``distribution`` and ``version`` if they are known; otherwise ``source_sha256``,
        the digest of its file; None if it has none.
    """
    # Some callables of C have no module or no name.
    module = getattr(thing, "__module__", None) or type(thing).__module__
    path = f"{module}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    if path.startswith("redis_consumer."):
        return {"origin": path, "distribution": DISTRIBUTION, "version": redis_consumer.__version__}
    point = _entry_point(thing, path, group) if group else None
    if point is not None and point.dist is not None:
        return {"origin": path, "distribution": point.dist.name, "version": point.dist.version}
    return {"origin": path, "distribution": None, "version": None, "source_sha256": _source_digest(thing)}


def _entry_point(thing: Hashable, path: str, group: str) -> metadata.EntryPoint | None:
    """Return the entry point of a thing. It can name the thing by a shorter path than that of its module."""
    points = metadata.entry_points(group=group)
    package = str(thing.__module__).partition(".")[0]
    exact = [point for point in points if point.value.replace(" ", "") == path]
    own = [point for point in points if point.module.partition(".")[0] == package]
    return next(iter(exact), None) or next((point for point in own if _gives(point, thing)), None)


def _gives(point: metadata.EntryPoint, thing: Hashable) -> bool:
    # A thing that is in use can't be in a module that isn't imported.
    found: object = sys.modules.get(point.module)
    for name in point.attr.split("."):
        found = getattr(found, name, None)
    return found is thing


def options_of(function: Any, given: Mapping[str, object]) -> dict[str, Any]:
    """Return all options of a function with their values, or their defaults."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):
        return plain(given)
    found = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return plain({**found, **given})


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in types of JSON; other types as texts."""
    loaded: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    return loaded


def _source_digest(thing: Any) -> str | None:
    try:
        return file_digest(inspect.getfile(thing))
    except (TypeError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit that pip recorded for an installation from a repository (PEP 610)."""
    try:
        text = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    commit = json.loads(text or "{}").get("vcs_info", {}).get("commit_id")
    return str(commit) if commit else None
