"""Prometheus and Grafana find a release: its pods, alerts and dashboard."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from support.charts import CHART, Chart, Release

MONITORED: dict[str, Any] = {"exporter": {"enabled": True}, "serviceMonitor": {"enabled": True}}


def services_of(release: Release) -> list[dict[str, Any]]:
    """Services that the ServiceMonitor selects."""
    wanted = release.one("ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    return [each for each in release.all("Service").values() if wanted <= each["metadata"]["labels"].items()]


def test_prometheus_asks_workers_and_exporter(chart: Chart) -> None:
    release = chart.render(MONITORED)
    asked = {
        (name, container_port["containerPort"])
        for service in services_of(release)
        for name, deployment in release.all("Deployment").items()
        if service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        for container_port in release.container(name)["ports"]
        if container_port["name"] == service["spec"]["ports"][0]["targetPort"]
    }
    assert asked == {("cells-redis-consumer", 8080), ("cells-redis-consumer-exporter", 9102)}


def test_workers_are_asked_where_nobody_probes_them(chart: Chart) -> None:
    release = chart.render({"probes": {"enabled": False}, "serviceMonitor": {"enabled": True}})
    container = release.container()
    assert release.variables()["HEALTH_ADDRESS"] == "0.0.0.0:8080"
    assert container["ports"] == [{"name": "health", "containerPort": 8080}]
    assert {"startupProbe", "livenessProbe", "readinessProbe"}.isdisjoint(container)


def test_it_asks_a_port_that_the_services_have(chart: Chart) -> None:
    release = chart.render(MONITORED)
    (endpoint,) = release.one("ServiceMonitor")["spec"]["endpoints"]
    assert {port["name"] for each in services_of(release) for port in each["spec"]["ports"]} == {endpoint["port"]}


def test_workers_that_are_not_ready_are_asked_too(chart: Chart) -> None:
    spec = chart.render(MONITORED).all("Service")["cells-redis-consumer-workers"]["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)


def test_the_alerts_are_those_of_the_file(chart: Chart) -> None:
    release = chart.render({"prometheusRule": {"enabled": True}})
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text(encoding="utf-8"))
    assert release.one("PrometheusRule")["spec"] == rules


def test_the_dashboard_is_that_of_the_file(chart: Chart) -> None:
    annotations = {"grafana_folder": "Microscopy"}
    found = chart.render({"dashboard": {"enabled": True, "annotations": annotations}}).one("ConfigMap")
    wanted = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    assert json.loads(found["data"]["redis-consumer.json"]) == wanted
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == annotations


@pytest.mark.parametrize("kind", ["serviceMonitor", "prometheusRule"])
def test_labels_that_an_operator_selects(chart: Chart, kind: str) -> None:
    release = chart.render({kind: {"enabled": True, "labels": {"release": "prometheus"}}})
    found = release.one(kind[0].upper() + kind[1:])
    assert found["metadata"]["labels"]["release"] == "prometheus"
