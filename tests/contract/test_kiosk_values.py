"""The kiosk's helmfiles deploy our workers: its value files go unchanged through our chart."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.charts import Chart, Release

FOLDER = Path(__file__).parent / "kiosk_values"
#: Release, metric, its target and the most replicas: contract, section 8, with one GPU node.
RELEASES: dict[str, tuple[str, float, int]] = {
    "segmentation-consumer": ("segmentation_consumer_key_ratio", 0.15, 150),
    "segmentation-zip-consumer": ("segmentation_consumer_key_ratio", 0.15, 100),
    "caliban-consumer": ("caliban_consumer_key_ratio", 1, 50),
    "caliban-zip-consumer": ("caliban_zip_consumer_key_ratio", 2, 100),
    "mesmer-consumer": ("mesmer_consumer_key_ratio", 1, 50),
    "mesmer-zip-consumer": ("mesmer_zip_consumer_key_ratio", 1, 50),
    "polaris-consumer": ("polaris_consumer_key_ratio", 1, 50),
    "polaris-zip-consumer": ("polaris_zip_consumer_key_ratio", 1, 50),
    "spot-consumer": ("spot_consumer_key_ratio", 1, 50),
    "spot-zip-consumer": ("spot_zip_consumer_key_ratio", 1, 50),
    "2020/segmentation-consumer": ("segmentation_consumer_key_ratio", 1, 50),
    "2020/zip-consumer": ("zip_consumer_key_ratio", 1, 50),
    "2020/tracking-consumer": ("tracking_consumer_key_ratio", 1, 50),
}

release = pytest.mark.parametrize("file", RELEASES)


def text_of(file: str) -> str:
    return (FOLDER / f"{file}.yaml").read_text(encoding="utf-8")


def values_of(file: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text_of(file)))


def given(values: dict[str, Any]) -> dict[str, str]:
    """Which values of a map the kiosk's chart passes on, and as which text."""
    return {key: str(value).lower() if value is True else str(value) for key, value in values.items() if value}


def render(chart: Chart, file: str) -> Release:
    return chart.render(text_of(file), name=Path(file).name)


def test_each_release_has_a_file() -> None:
    files = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")}
    assert files == set(RELEASES)


@release
def test_the_objects_are_of_the_old_kinds(chart: Chart, file: str) -> None:
    secret = ["Secret"] if given(values_of(file)["secrets"]) else []
    assert render(chart, file).kinds == ["Deployment", "HorizontalPodAutoscaler", *secret]


@release
def test_the_deployment_has_the_name_that_the_metrics_want(chart: Chart, file: str) -> None:
    assert render(chart, file).one("Deployment")["metadata"]["name"] == Path(file).name


@release
def test_variables_are_passed_on_as_before(chart: Chart, file: str) -> None:
    variables = render(chart, file).variables()
    assert variables.pop("HEALTH_ADDRESS") == "0.0.0.0:8080"
    assert variables.pop("ORT_DISABLE_TELEMETRY") == "1"
    assert variables == given(values_of(file)["env"])


@release
def test_secrets_are_in_a_secret_of_the_release(chart: Chart, file: str) -> None:
    found = {
        name: {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        for name, secret in render(chart, file).all("Secret").items()
    }
    wanted = given(values_of(file)["secrets"])
    assert found == ({Path(file).name: wanted} if wanted else {})


@release
def test_a_container_reads_its_secret(chart: Chart, file: str) -> None:
    rendered = render(chart, file)
    assert rendered.container().get("envFrom", []) == [{"secretRef": {"name": name}} for name in rendered.all("Secret")]


@release
def test_the_autoscaler_follows_the_kiosks_metric(chart: Chart, file: str) -> None:
    metric, target, most = RELEASES[file]
    spec = render(chart, file).one("HorizontalPodAutoscaler")["spec"]
    assert (spec["scaleTargetRef"]["name"], spec["minReplicas"], spec["maxReplicas"]) == (Path(file).name, 1, most)
    (found,) = spec["metrics"]
    assert found["object"] == {
        "describedObject": {"apiVersion": "v1", "kind": "Namespace", "name": metric},
        "metric": {"name": metric},
        "target": {"type": "Value", "value": target},
    }


@release
def test_image_and_place_are_as_given(chart: Chart, file: str) -> None:
    values, rendered = values_of(file), render(chart, file)
    container, pod = rendered.container(), rendered.pod()
    image = values["image"]
    assert (container["image"], container["imagePullPolicy"]) == (
        f"{image['repository']}:{image['tag']}",
        image["pullPolicy"],
    )
    assert container["resources"] == values["resources"]
    assert (pod["nodeSelector"], pod["tolerations"]) == (values["nodeSelector"], values["tolerations"])


@release
def test_the_image_starts_the_worker(chart: Chart, file: str) -> None:
    assert {"command", "args"}.isdisjoint(render(chart, file).container())


def test_the_values_have_what_is_left_out() -> None:
    values = [values_of(file)["env"].items() for file in RELEASES]
    left_out = {repr(value) for items in values for key, value in items if not value}
    assert left_out == {"''", "0", "False"}
