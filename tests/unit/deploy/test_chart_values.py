"""Wrong values of the chart are refused by name, and valid ones are passed on."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

import redis_consumer
from support.charts import CHART, Chart, Refused

MISTAKES: dict[str, dict[str, Any]] = {
    "replica": {"replica": 2},
    "repo": {"image": {"repo": "example.org/mine"}},
    "enable": {"hpa": {"enable": True}},
    "metric": {"hpa": {"metrics": [{"type": "Object", "metric": {}}]}},
    "max": {"keda": {"max": 3}},
    "port": {"networkPolicy": {"redis": {"port": 6379}}},
    "limit": {"resources": {"limit": {}}},
    "size": {"tmp": {"size": "1Gi"}},
    "ready": {"probes": {"ready": {}}},
    "period": {"probes": {"liveness": {"period": 3}}},
    "annotation": {"serviceAccount": {"annotation": {}}},
    "envs": {"consumers": [{"name": "image", "envs": {}}]},
    "prometheus": {"consumers": [{"name": "image", "keda": {"prometheus": "x"}}]},
    "serviceAccount": {"consumers": [{"name": "image", "serviceAccount": {}}]},
    "REDIS-HOST": {"env": {"REDIS-HOST": "redis"}},
    "my consumer.py": {"code": {"my consumer.py": ""}},
}


@pytest.mark.parametrize("key", MISTAKES)
def test_a_wrong_key_is_refused_with_its_name(chart: Chart, key: str) -> None:
    with pytest.raises(Refused, match=f"'{key}'"):
        chart.render(MISTAKES[key])


def test_the_defaults_pass_the_linter(chart: Chart) -> None:
    assert chart.lint() == []


def test_the_linter_finds_a_wrong_key(chart: Chart) -> None:
    assert "additional properties 'replica' not allowed" in chart.lint({"replica": 2})[0]


def test_defaults_make_one_deployment(chart: Chart) -> None:
    assert chart.render().kinds == ["Deployment"]


def test_the_chart_installs_this_version() -> None:
    meta = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert meta["appVersion"] == redis_consumer.__version__


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (26379, "26379"),
        (104857600, "104857600"),
        (0.15, "0.15"),
        (True, "true"),
        ("0", "0"),
        ("false", "false"),
        ("a\n'b", "a\n'b"),
    ],
)
def test_a_variable_keeps_its_text(chart: Chart, value: object, text: str) -> None:
    assert chart.render({"env": {"X": value}}).variables()["X"] == text


@pytest.mark.parametrize("value", ["", 0, 0.0, False, None])
def test_a_variable_without_a_value_is_left_out(chart: Chart, value: object) -> None:
    assert "X" not in chart.render({"env": {"X": value}}).variables()


@pytest.mark.parametrize("key", ["env", "secrets", "resources", "tolerations", "affinity", "nodeSelector"])
def test_a_value_may_be_left_blank(chart: Chart, key: str) -> None:
    assert chart.render(f"{key}:\n").kinds == ["Deployment"]


BLOCKS = [
    "networkPolicy",
    "replicas",
    "image",
    "hpa",
    "keda",
    "podDisruptionBudget",
    "probes",
    "tmp",
    "exporter",
    "server",
]


@pytest.mark.parametrize("key", BLOCKS)
def test_a_value_that_may_not_be_left_blank_is_named(chart: Chart, key: str) -> None:
    with pytest.raises(Refused, match=f"missing property '{key}'"):
        chart.render(f"{key}:\n")


def test_names_that_look_like_other_values_are_text(chart: Chart) -> None:
    release = chart.render({"env": {"Y": "1", "ON": "1"}, "secrets": {"NO": "1"}}, name="2024")
    assert set(release.variables()) >= {"Y", "ON"}
    assert list(release.one("Secret")["data"]) == ["NO"]
    assert release.one("Deployment")["metadata"]["labels"]["app.kubernetes.io/instance"] == "2024"


@pytest.mark.parametrize("key", ["nameOverride", "fullnameOverride"])
def test_a_name_of_digits_is_text(chart: Chart, key: str) -> None:
    values = {"podDisruptionBudget": {"enabled": True}, "networkPolicy": {"enabled": True}, "secrets": {"A": "b"}}
    scaler: dict[str, Any]
    for scaler in ({"hpa": {"enabled": True}}, {"code": {"a.py": ""}}):
        release = chart.render({key: "123", **values, **scaler})
        assert all("123" in each["metadata"]["name"] for each in release.manifests)


def test_words_that_look_like_other_values_are_text(chart: Chart) -> None:
    pod = chart.render({"priorityClassName": "true", "serviceAccount": {"create": True, "name": "123"}}).pod()
    assert (pod["priorityClassName"], pod["serviceAccountName"]) == ("true", "123")


@pytest.mark.parametrize("name", ["2024", "cells.a"])
@pytest.mark.parametrize("key", ["exporter", "serviceMonitor"])
def test_a_name_that_no_service_can_have_is_refused(chart: Chart, name: str, key: str) -> None:
    with pytest.raises(Refused, match="set fullnameOverride"):
        chart.render({key: {"enabled": True}}, name=name)
    chart.render({key: {"enabled": True}, "fullnameOverride": "cells"}, name=name)


def test_numbers_may_be_quoted(chart: Chart) -> None:
    release = chart.render({"replicas": "2"})
    assert release.one("Deployment")["spec"]["replicas"] == 2


def test_a_number_that_isn_t_written_as_one_is_refused(chart: Chart) -> None:
    with pytest.raises(Refused, match="/replicas"):
        chart.render({"replicas": "08"})


def test_none_are_none(chart: Chart) -> None:
    assert chart.render({"replicas": 0}).one("Deployment")["spec"]["replicas"] == 0


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, "cells-redis-consumer"),
        ({"nameOverride": "cells"}, "cells"),
        ({"nameOverride": "segmentation-consumer"}, "cells-segmentation-consumer"),
        ({"fullnameOverride": "segmentation-consumer"}, "segmentation-consumer"),
    ],
)
def test_names(chart: Chart, values: dict[str, Any], name: str) -> None:
    assert list(chart.render(values).all("Deployment")) == [name]
