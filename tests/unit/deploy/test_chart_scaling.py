"""The number of workers follows the number of jobs, with KEDA or the cluster's own autoscaler."""

from __future__ import annotations

from typing import Any

import pytest

from support.charts import Chart, Release

KEDA: dict[str, Any] = {"queue": "Predict", "keda": {"enabled": True, "maxReplicas": 20, "jobsPerWorker": 2}}
SERVING: dict[str, Any] = {"serve": ["image=predict", "zip=predict-zip"], "keda": {"enabled": True}}
EXPORTER = "cells-redis-consumer-exporter"


def unfinished(queue: str) -> str:
    return f'redis_consumer_queue_unfinished_jobs{{queue="{queue}"}}'


def spec_of(release: Release, kind: str) -> dict[str, Any]:
    return dict(release.one(kind)["spec"])


def test_keda_counts_waiting_and_running_jobs_and_goes_to_zero(chart: Chart) -> None:
    spec = spec_of(chart.render(KEDA), "ScaledObject")
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 20)
    assert spec["scaleTargetRef"] == {"name": "cells-redis-consumer"}
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["valueLocation"] == unfinished("predict")
    assert trigger["metadata"]["targetValue"] == "2"


def test_keda_asks_the_exporter(chart: Chart) -> None:
    release = chart.render(KEDA)
    (trigger,) = spec_of(release, "ScaledObject")["triggers"]
    service = release.one("Service")
    (port,) = service["spec"]["ports"]
    assert service["metadata"]["name"] == EXPORTER
    assert trigger["metadata"]["url"] == f"http://{EXPORTER}.deepcell.svc:{port['port']}/metrics"


def test_the_exporter_tells_of_the_queues_that_are_asked_for(chart: Chart) -> None:
    values = {"consumers": [{"name": "two", **SERVING}, {"name": "zip", "type": "zip", "queue": "predict"}]}
    command = chart.render(values).container(EXPORTER)["command"]
    assert command == [
        *("redis-consumer", "metrics", "--listen", "0.0.0.0:9102"),
        *("--queue", "predict", "--queue", "predict-zip"),
    ]


def test_each_queue_of_a_worker_has_a_trigger(chart: Chart) -> None:
    triggers = spec_of(chart.render(SERVING), "ScaledObject")["triggers"]
    queues = ["predict", "predict-zip"]
    assert [each["metadata"]["valueLocation"] for each in triggers] == [unfinished(queue) for queue in queues]


@pytest.mark.parametrize(
    ("values", "queue"),
    [
        ({}, "predict"),
        ({"env": {"QUEUE": "track", "CONSUMER_TYPE": "tracking"}}, "track"),
        ({"env": {"QUEUE": "track", "CONSUMER_TYPE": "zip"}}, "track-zip"),
        ({"type": "zip", "queue": "track-zip"}, "track-zip"),
        ({"serve": ["package.module:Class=Count"]}, "count"),
        ({"secrets": {"QUEUE": "track", "CONSUMER_TYPE": "zip"}}, "track-zip"),
        ({"env": {"QUEUE": " track "}}, "track"),
    ],
)
def test_queues_are_those_that_a_worker_serves(chart: Chart, values: dict[str, Any], queue: str) -> None:
    (trigger,) = spec_of(chart.render({**values, "keda": {"enabled": True}}), "ScaledObject")["triggers"]
    assert trigger["metadata"]["valueLocation"] == unfinished(queue)


def test_the_exporter_reaches_redis_as_workers_do(chart: Chart) -> None:
    release = chart.render(
        {
            "env": {"REDIS_HOST": "redis"},
            "secrets": {"REDIS_PASSWORD": "x"},
            "exporter": {"enabled": True, "env": {"LOG_LEVEL": "INFO"}},
        }
    )
    assert release.variables(EXPORTER) == {"REDIS_HOST": "redis", "LOG_LEVEL": "INFO"}
    assert release.container(EXPORTER)["envFrom"] == [{"secretRef": {"name": "cells-redis-consumer"}}]


def test_the_exporter_has_the_certificates_of_workers(chart: Chart) -> None:
    mount = {"name": "redis-tls", "mountPath": "/etc/redis-tls"}
    volume = {"name": "redis-tls", "secret": {"secretName": "redis-tls"}}
    values = {"volumes": [volume], "volumeMounts": [mount], "exporter": {"enabled": True}}
    for env, is_mounted in ({"REDIS_CA": "/etc/redis-tls/ca.crt"}, True), (None, False):
        container = chart.render({**values, "env": env}).container(EXPORTER)
        assert (mount in container["volumeMounts"]) is is_mounted


def test_keda_may_ask_a_prometheus(chart: Chart) -> None:
    release = chart.render({"keda": {"enabled": True, "prometheusAddress": "http://prometheus:9090"}})
    (trigger,) = spec_of(release, "ScaledObject")["triggers"]
    assert trigger["metadata"] == {
        "serverAddress": "http://prometheus:9090",
        "query": 'max(redis_consumer_queue_unfinished_jobs{queue="predict",namespace=~"|deepcell"})',
        "threshold": "1",
        "ignoreNullValues": "false",
    }
    assert "Service" not in release.kinds


def test_notes_say_that_prometheus_needs_an_exporter(chart: Chart) -> None:
    values = {"keda": {"enabled": True, "prometheusAddress": "http://prometheus:9090"}}
    assert "exporter.enabled" in chart.render(values).notes
    assert "exporter.enabled" not in chart.render({**values, "exporter": {"enabled": True}}).notes


def test_notes_ask_the_exporter_where_there_may_be_no_worker(chart: Chart) -> None:
    assert f"deployment/{EXPORTER} -- redis-consumer doctor" in chart.render(KEDA).notes
    assert "deployment/cells-redis-consumer -- redis-consumer doctor" in chart.render().notes


def test_large_numbers_stay_whole(chart: Chart) -> None:
    million = 1_000_000
    values = {"keda": {"enabled": True, "cooldownPeriod": million}, "terminationGracePeriodSeconds": million}
    release = chart.render(values)
    assert spec_of(release, "ScaledObject")["cooldownPeriod"] == million
    assert release.pod("cells-redis-consumer")["terminationGracePeriodSeconds"] == million


def test_keda_s_fallback_and_pace(chart: Chart) -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 600}}
    fallback = {"failureThreshold": 3, "replicas": 1}
    keda = {"enabled": True, "fallback": fallback, "behavior": behavior, "pollingInterval": 5, "cooldownPeriod": 60}
    spec = spec_of(chart.render({"keda": keda}), "ScaledObject")
    assert (spec["fallback"], spec["pollingInterval"], spec["cooldownPeriod"]) == (fallback, 5, 60)
    assert spec["advanced"] == {"horizontalPodAutoscalerConfig": {"behavior": behavior}}


@pytest.mark.parametrize("scaler", ["hpa", "keda"])
def test_a_deployment_leaves_its_number_to_the_scaler(chart: Chart, scaler: str) -> None:
    release = chart.render({scaler: {"enabled": True}})
    assert "replicas" not in release.all("Deployment")["cells-redis-consumer"]["spec"]


@pytest.mark.parametrize(
    ("values", "metric"),
    [
        ({"queue": "predict"}, "predict_consumer_key_ratio"),
        ({"queue": "caliban", "type": "zip"}, "caliban_zip_consumer_key_ratio"),
    ],
)
def test_without_a_metric_it_is_the_kiosk_s(chart: Chart, values: dict[str, Any], metric: str) -> None:
    spec = spec_of(chart.render({**values, "hpa": {"enabled": True, "target": 2}}), "HorizontalPodAutoscaler")
    assert [each["object"] for each in spec["metrics"]] == [
        {
            "describedObject": {"apiVersion": "v1", "kind": "Namespace", "name": metric},
            "metric": {"name": metric},
            "target": {"type": "Value", "value": "2"},
        }
    ]


OLD_AND_NEW: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {
            "type": "Object",
            "object": {
                "metricName": "ratio",
                "target": {"apiVersion": "v1", "kind": "Namespace", "name": "ratio"},
                "targetValue": "150m",
            },
        },
        {
            "describedObject": {"apiVersion": "v1", "kind": "Namespace", "name": "ratio"},
            "metric": {"name": "ratio"},
            "target": {"type": "Value", "value": "150m"},
        },
    ),
    (
        {
            "type": "External",
            "external": {"metricName": "jobs", "metricSelector": {"matchLabels": {"a": "b"}}, "targetAverageValue": 3},
        },
        {
            "metric": {"name": "jobs", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "AverageValue", "averageValue": 3},
        },
    ),
    (
        {"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": 80}},
        {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    ),
    (
        {"type": "Pods", "pods": {"metricName": "jobs", "targetAverageValue": "1"}},
        {"metric": {"name": "jobs"}, "target": {"type": "AverageValue", "averageValue": "1"}},
    ),
    (
        {
            "type": "Object",
            "object": {
                "metricName": "jobs",
                "target": {"apiVersion": "v1", "kind": "Namespace", "name": "jobs"},
                "targetValue": "0",
                "averageValue": "3",
            },
        },
        {
            "describedObject": {"apiVersion": "v1", "kind": "Namespace", "name": "jobs"},
            "metric": {"name": "jobs"},
            "target": {"type": "AverageValue", "averageValue": "3"},
        },
    ),
    (
        {
            "type": "ContainerResource",
            "containerResource": {"name": "cpu", "container": "worker", "targetAverageUtilization": 80},
        },
        {"name": "cpu", "container": "worker", "target": {"type": "Utilization", "averageUtilization": 80}},
    ),
]


def as_of_today(kind: str, source: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, kind[0].lower() + kind[1:]: source}


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW, ids=[old["type"] for old, _ in OLD_AND_NEW])
def test_metrics_in_the_oldest_words_are_translated(chart: Chart, old: dict[str, Any], new: dict[str, Any]) -> None:
    spec = spec_of(chart.render({"hpa": {"enabled": True, "metrics": [old]}}), "HorizontalPodAutoscaler")
    assert spec["metrics"] == [as_of_today(old["type"], new)]


@pytest.mark.parametrize("new", [as_of_today(old["type"], new) for old, new in OLD_AND_NEW])
def test_metrics_in_today_s_words_stay(chart: Chart, new: dict[str, Any]) -> None:
    spec = spec_of(chart.render({"hpa": {"enabled": True, "metrics": [new]}}), "HorizontalPodAutoscaler")
    assert spec["metrics"] == [new]


def test_the_autoscaler_s_pace(chart: Chart) -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 600}}
    spec = spec_of(chart.render({"hpa": {"enabled": True, "behavior": behavior}}), "HorizontalPodAutoscaler")
    assert spec["behavior"] == behavior
