"""What is suggested for an image by its facts, and the sentence that says why."""

from __future__ import annotations

from typing import Any

import pytest

from redis_consumer.web.view.suggestions import suggest

MODELS = {
    kind: {"name": f"{kind}:1", "pixel_size_um": size, "object_diameter_px": 30.0}
    for kind, size in (("nuclei", 0.65), ("phase", 1.6), ("tissue", 0.3))
}
DARK = {"0.1": 90.0, "1": 95.0, "50": 120.0, "99": 3000.0, "99.9": 4000.0}
GREY = {"0.1": 60.0, "1": 80.0, "50": 128.0, "99": 180.0, "99.9": 200.0}
BRIGHT = {"0.1": 60.0, "1": 80.0, "50": 230.0, "99": 250.0, "99.9": 255.0}


def channel(
    name: str = "", percentiles: dict[str, float] | None = None, *, is_transmitted: bool = False
) -> dict[str, Any]:
    ranks = percentiles or DARK
    return {"name": name, "is_transmitted": is_transmitted, "percentiles": ranks, "max": ranks["99.9"]}


def facts(*channels: dict[str, Any], **changes: Any) -> dict[str, Any]:
    usual = {"channels": list(channels), "is_colour": False, "t": 1, "axes": "CYX", "pixel_size_um": None}
    return {**usual, **changes}


@pytest.mark.parametrize(
    ("found", "kind", "model", "channels", "why"),
    [
        (facts(channel()), "segmentation", "nuclei:1", None, "bright objects on a dark background"),
        (facts(channel(percentiles=GREY)), "segmentation", "phase:1", None, "grey background"),
        (facts(channel("BF", is_transmitted=True)), "segmentation", "phase:1", None, "transmitted light"),
        (facts(*[channel(percentiles=BRIGHT)] * 3, is_colour=True), "segmentation", "tissue:1", None, "stained tissue"),
        (facts(channel("BF", is_transmitted=True), channel("GFP")), "segmentation", "nuclei:1", "1", "first channel"),
        (facts(channel("GFP"), channel("DAPI")), "segmentation", "nuclei:1", "1", "DAPI shows nuclei"),
        (facts(channel("DAPI"), channel("E-Cadherin")), "mesmer", "", "0,1", "whole cells"),
        (facts(channel("membrane"), channel("Hoechst")), "mesmer", "", "1,0", "Hoechst shows nuclei"),
        (facts(channel("smFISH")), "spot", "", None, "shows spots"),
        (facts(channel(), t=20, axes="TYX"), "tracking", "nuclei:1", None, "20 times"),
        (facts(channel(), t=20, axes="BYX"), "segmentation", "nuclei:1", None, "dark background"),
    ],
)  # fmt: skip
def test_kind_model_and_channels(found: dict[str, Any], kind: str, model: str, channels: str | None, why: str) -> None:
    suggested = suggest(found, MODELS)
    assert (suggested["kind"], suggested["model"]) == (kind, model)
    assert suggested["options"].get("channels") == channels
    assert why in suggested["why"]
    assert suggested["why"].endswith(".")


def test_the_scale_follows_from_the_pixel_size() -> None:
    suggested = suggest(facts(channel(), pixel_size_um=[0.325, 0.325]), MODELS)
    assert suggested["options"]["scale"] == 0.5
    assert "0.325 µm are resized to the 0.65 µm of the model" in suggested["why"]
    assert "scale" not in suggest(facts(channel(), pixel_size_um=[0.325, 0.65]), MODELS)["options"]
    unknown = suggest(facts(channel()), MODELS)
    assert "scale" not in unknown["options"]
    assert "pixel size is unknown" in unknown["why"]


def test_without_models_the_worker_chooses() -> None:
    suggested = suggest(facts(channel()), {})
    assert (suggested["model"], suggested["options"]) == ("", {})
