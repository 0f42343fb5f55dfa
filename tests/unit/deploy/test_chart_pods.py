"""A worker's pods are safe, have probes, and get the time to end their jobs."""

from __future__ import annotations

from typing import Any

import pytest

import redis_consumer
from redis_consumer.worker.slot_pool import KILL_AFTER_S
from support.charts import Chart, Refused

ALL: dict[str, Any] = {"exporter": {"enabled": True}}


@pytest.mark.parametrize(
    ("grace", "seconds"), [(None, 35), (60, 70), ("60", 70), (2.5, 13), (" 30 ", 40), ("0", 10), (0, 35)]
)
def test_a_cluster_waits_for_the_grace_period(chart: Chart, grace: object, seconds: int) -> None:
    pod = chart.render({"env": {"GRACE_PERIOD": grace}}).pod()
    assert pod["terminationGracePeriodSeconds"] == seconds


def test_a_grace_period_in_a_secret_counts(chart: Chart) -> None:
    assert chart.render({"secrets": {"GRACE_PERIOD": 300}}).pod()["terminationGracePeriodSeconds"] == 310


def test_a_variable_wins_over_a_secret_as_in_a_container(chart: Chart) -> None:
    release = chart.render({"secrets": {"GRACE_PERIOD": 300}, "env": {"GRACE_PERIOD": 20}})
    assert release.pod()["terminationGracePeriodSeconds"] == 30


def test_a_cluster_waits_longer_than_a_worker_takes_to_stop(chart: Chart) -> None:
    assert chart.render({"env": {"GRACE_PERIOD": "0"}}).pod()["terminationGracePeriodSeconds"] > KILL_AFTER_S


def test_another_time_may_be_given(chart: Chart) -> None:
    assert chart.render({"terminationGracePeriodSeconds": 90}).pod()["terminationGracePeriodSeconds"] == 90


@pytest.mark.parametrize(
    ("probe", "path"), [("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")]
)
def test_probes_ask_where_the_worker_answers(chart: Chart, probe: str, path: str) -> None:
    release = chart.render({"probes": {"port": 9000}})
    container = release.container()
    assert container[probe]["httpGet"] == {"path": path, "port": "health"}
    assert container["ports"] == [{"name": "health", "containerPort": 9000}]
    assert release.variables()["HEALTH_ADDRESS"] == "0.0.0.0:9000"


def test_an_address_of_ones_own_is_probed(chart: Chart) -> None:
    release = chart.render({"env": {"HEALTH_ADDRESS": "[::]:8081"}})
    assert release.container()["ports"] == [{"name": "health", "containerPort": 8081}]
    assert release.variables()["HEALTH_ADDRESS"] == "[::]:8081"


def test_without_probes(chart: Chart) -> None:
    release = chart.render({"probes": {"enabled": False}})
    assert {"startupProbe", "livenessProbe", "readinessProbe", "ports"}.isdisjoint(release.container())
    assert "HEALTH_ADDRESS" not in release.variables()


def test_a_probe_can_be_switched_off(chart: Chart) -> None:
    release = chart.render({"probes": {"startup": None}, "consumers": [{"name": "a", "probes": {"liveness": None}}]})
    container = release.container("cells-redis-consumer-a")
    assert "readinessProbe" in container
    assert {"startupProbe", "livenessProbe"}.isdisjoint(container)


@pytest.mark.parametrize("address", ["127.0.0.1:8080", " localhost:8080", "LOCALHOST:8080", "[::1]:8080"])
def test_an_address_that_no_probe_reaches_is_refused(chart: Chart, address: str) -> None:
    values: dict[str, Any] = {"env": {"HEALTH_ADDRESS": address}}
    with pytest.raises(Refused, match="no probe reaches the worker"):
        chart.render(values)
    chart.render({**values, "probes": {"enabled": False}})
    with pytest.raises(Refused, match="no probe reaches the worker"):
        chart.render({**values, "probes": {"enabled": False}, "serviceMonitor": {"enabled": True}})


def test_an_address_may_have_spaces_around_it(chart: Chart) -> None:
    container = chart.render({"env": {"HEALTH_ADDRESS": " 0.0.0.0:9000 "}}).container()
    assert container["ports"] == [{"name": "health", "containerPort": 9000}]


@pytest.mark.parametrize("name", ["cells-redis-consumer", "cells-redis-consumer-exporter"])
def test_pods_have_no_rights(chart: Chart, name: str) -> None:
    release = chart.render(ALL)
    pod, container = release.pod(name), release.container(name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


@pytest.mark.parametrize("name", ["cells-redis-consumer", "cells-redis-consumer-exporter"])
def test_temporary_files_have_a_place(chart: Chart, name: str) -> None:
    release = chart.render(ALL)
    assert {"name": "tmp", "mountPath": "/tmp"} in release.container(name)["volumeMounts"]
    assert {"name": "tmp", "emptyDir": {}} in release.pod(name)["volumes"]


def test_temporary_files_have_a_limit_and_a_medium(chart: Chart) -> None:
    volumes = chart.render({"tmp": {"sizeLimit": "10Gi", "medium": "Memory"}}).pod()["volumes"]
    assert volumes == [{"name": "tmp", "emptyDir": {"sizeLimit": "10Gi", "medium": "Memory"}}]


def test_no_variable_comes_from_a_service_s_name(chart: Chart) -> None:
    assert chart.render().pod()["enableServiceLinks"] is False


def test_a_workload_s_identity(chart: Chart) -> None:
    annotations = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/cells"}
    release = chart.render({"serviceAccount": {"create": True, "annotations": annotations}, **ALL})
    account = release.one("ServiceAccount")
    assert account["metadata"]["annotations"] == annotations
    for name in release.all("Deployment"):
        assert release.pod(name)["serviceAccountName"] == account["metadata"]["name"]


def test_an_account_that_exists(chart: Chart) -> None:
    release = chart.render({"serviceAccount": {"name": "cells"}})
    assert release.pod()["serviceAccountName"] == "cells"
    assert release.kinds == ["Deployment"]


def test_what_else_a_pod_may_be_given(chart: Chart) -> None:
    given: dict[str, Any] = {
        "volumes": [{"name": "key", "secret": {"secretName": "gcs"}}],
        "volumeMounts": [{"name": "key", "mountPath": "/key"}],
        "envFrom": [{"secretRef": {"name": "redis"}}],
        "podLabels": {"azure.workload.identity/use": "true"},
        "podAnnotations": {"example.org/team": "cells"},
        "priorityClassName": "low",
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
        ],
        "imagePullSecrets": [{"name": "registry"}],
    }
    release = chart.render(given)
    pod, container = release.pod(), release.container()
    meta = release.one("Deployment")["spec"]["template"]["metadata"]
    assert given["volumes"][0] in pod["volumes"]
    assert given["volumeMounts"][0] in container["volumeMounts"]
    assert container["envFrom"] == given["envFrom"]
    assert meta["labels"].items() >= {"azure.workload.identity/use": "true"}.items()
    assert meta["annotations"].items() >= {"example.org/team": "cells"}.items()
    for key in ("priorityClassName", "topologySpreadConstraints", "imagePullSecrets"):
        assert pod[key] == given[key]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {"maxUnavailable": 1}),
        ({"minAvailable": "50%"}, {"minAvailable": "50%"}),
        ({"minAvailable": 0}, {"minAvailable": 0}),
    ],
)
def test_disruptions(chart: Chart, given: dict[str, Any], kept: dict[str, Any]) -> None:
    release = chart.render({"podDisruptionBudget": {"enabled": True, **given}})
    spec = release.one("PodDisruptionBudget")["spec"]
    assert spec.pop("unhealthyPodEvictionPolicy") == "AlwaysAllow"
    assert spec.pop("selector") == release.one("Deployment")["spec"]["selector"]
    assert spec == kept


def test_disruptions_without_a_limit_are_refused(chart: Chart) -> None:
    with pytest.raises(Refused, match="neither minAvailable nor maxUnavailable"):
        chart.render({"podDisruptionBudget": {"enabled": True, "maxUnavailable": None}})


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({"repository": "r/a"}, f"r/a:{redis_consumer.__version__}"),
        ({"repository": "r/a", "tag": "1"}, "r/a:1"),
        ({"repository": "r/a", "tag": "1", "digest": DIGEST}, f"r/a@{DIGEST}"),
    ],
)
def test_an_image_by_tag_or_digest(chart: Chart, image: dict[str, Any], name: str) -> None:
    assert chart.render({"image": image}).container()["image"] == name


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"image": {"repository": "r/top", "tag": "2"}}, "r/top:2"),
        ({}, "r/a:1"),
        ({"exporter": {"enabled": True, "image": {"repository": "r/e"}}}, "r/e:1"),
    ],
)
def test_the_exporter_has_an_image_that_can_be_pulled(chart: Chart, values: dict[str, Any], name: str) -> None:
    consumers = [{"name": "a", "image": {"repository": "r/a", "tag": "1"}}]
    release = chart.render({**ALL, "consumers": consumers, **values})
    assert release.container("cells-redis-consumer-exporter")["image"] == name


def test_a_digest_goes_where_another_image_is_named(chart: Chart) -> None:
    consumers = [{"name": "a", "image": {"tag": "2"}}, {"name": "b", "image": {"pullPolicy": "Always"}}]
    values = {"image": {"repository": "r/a", "digest": DIGEST}, "consumers": consumers}
    release = chart.render({**values, "exporter": {"enabled": True, "image": {"repository": "r/e", "tag": "3"}}})
    images = {name.rpartition("-")[2]: release.container(name)["image"] for name in release.all("Deployment")}
    assert images == {"a": "r/a:2", "b": f"r/a@{DIGEST}", "exporter": "r/e:3"}
