"""Suggests the settings of a job for an image by its facts, with the reason in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

#: Kinds of images for which there can be a model.
NUCLEI, CYTOPLASM, PHASE, TISSUE = "nuclei", "cytoplasm", "phase", "tissue"
#: Frames from which a file is a movie.
_LEAST_FRAMES = 3
#: A photograph of tissue has a bright background: the median of each of its colours is above this share.
_BRIGHT = 0.45
#: Bright objects on a dark background: the brightest values are so many times as far from the median as the darkest.
_SKEWED = 2.5
_NUCLEAR = re.compile(r"dapi|hoechst|nucle|h2b|histone|dna|draq|sytox", re.IGNORECASE)
_MEMBRANE = re.compile(
    r"membrane|cytopl|actin|phalloidin|wga|e-?cad|na\W?k\W?atpase|cellmask|pan-?ck|whole", re.IGNORECASE
)
_SPOTS = re.compile(r"fish|spot|mrna|puncta", re.IGNORECASE)


def suggest(facts: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the object ``suggestions`` of the API.

    Args:
        facts: of the image, see `redis_consumer.web.view.facts.facts_of`.
        models: model of each kind of image: ``name`` (name:version), ``pixel_size_um`` and ``object_diameter_px`` of
            its card, None if unknown. Kinds without a model are missing.

    Returns:
        ``kind`` (consumer type), ``model`` (name:version, empty for the worker's own), ``options`` (fields of the job),
        ``roles`` (index of the channel of each role) and ``why``.
    """
    channels: Sequence[Mapping[str, Any]] = facts["channels"]
    nuclear, whole = _first(channels, _NUCLEAR), _first(channels, _MEMBRANE)
    if nuclear is not None and whole is not None and nuclear != whole:
        names = f"{channels[nuclear]['name']} shows nuclei and {channels[whole]['name']} whole cells"
        options = {"channels": f"{nuclear},{whole}"}
        return _answer("mesmer", "", options, {"nucleus": nuclear, "cytoplasm": whole}, f"{names}.", facts, {})
    spots = _first(channels, _SPOTS)
    if spots is not None and len(channels) == 1:
        return _answer("spot", "", {}, {"spots": 0}, "The name of the channel says that it shows spots.", facts, {})
    kind, index, why = _look(facts, nuclear)
    model = models.get(kind) or {}
    options = {} if facts["is_colour"] or len(channels) == 1 else {"channels": str(index)}
    role = {NUCLEI: "nucleus", CYTOPLASM: "cytoplasm"}.get(kind, "cells")
    consumer = "tracking" if facts["t"] >= _LEAST_FRAMES and "T" in facts["axes"] else "segmentation"
    if consumer == "tracking":
        why = f"{why} It has {facts['t']} times, so cells are also followed."
    return _answer(consumer, model.get("name", ""), options, {role: index}, why, facts, model)


def _answer(
    kind: str,
    model: str,
    options: dict[str, Any],
    roles: dict[str, int],
    why: str,
    facts: Mapping[str, Any],
    card: Mapping[str, Any],
) -> dict[str, Any]:
    size = facts["pixel_size_um"]
    of_model = card.get("pixel_size_um")
    if size and of_model and abs(size[0] - size[1]) <= 0.01 * size[1]:
        options = {**options, "scale": float(f"{size[1] / of_model:.4g}")}
        why = f"{why} Its pixels of {size[1]:.4g} µm are resized to the {of_model:g} µm of the model."
    elif of_model:
        why = f"{why} Its pixel size is unknown, so the scale is estimated."
    return {"kind": kind, "model": model, "options": options, "roles": roles, "why": why}


def _look(facts: Mapping[str, Any], nuclear: int | None) -> tuple[str, int, str]:
    """Return the kind of an image, the channel for its model, and the reason."""
    channels: Sequence[Mapping[str, Any]] = facts["channels"]
    if nuclear is not None:
        return NUCLEI, nuclear, f"Channel {channels[nuclear]['name']} shows nuclei by its name."
    if facts["is_colour"] and all(_share(channel) > _BRIGHT for channel in channels[:3]):
        return TISSUE, 0, "It is a colour picture with a bright background, as of stained tissue."
    fluorescent = [index for index, channel in enumerate(channels) if not channel["is_transmitted"]]
    if not fluorescent:
        return PHASE, 0, "Its channels show transmitted light."
    index = fluorescent[0]
    if len(channels) == 1 and not _is_skewed(channels[index]):
        return PHASE, index, "It has a grey background with darker and brighter objects, as in phase contrast."
    if len(channels) == 1:
        return NUCLEI, index, "It has bright objects on a dark background, as in fluorescence."
    first = "the first channel" if index == 0 else "the first channel that does not show transmitted light"
    return NUCLEI, index, f"No name says which channel shows nuclei, so {first} is used."


def _first(channels: Sequence[Mapping[str, Any]], pattern: re.Pattern[str]) -> int | None:
    return next((index for index, channel in enumerate(channels) if pattern.search(channel["name"])), None)


def _share(channel: Mapping[str, Any]) -> float:
    """Return where the median lies in the range of a sample of 8 bits, or of the values."""
    most = 255.0 if channel["max"] <= 255 else channel["max"]
    return float(channel["percentiles"]["50"] / most) if most else 0.0


def _is_skewed(channel: Mapping[str, Any]) -> bool:
    ranks = channel["percentiles"]
    below, above = ranks["50"] - ranks["0.1"], ranks["99.9"] - ranks["50"]
    return bool(above > _SKEWED * below)
