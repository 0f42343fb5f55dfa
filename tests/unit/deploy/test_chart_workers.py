"""One release runs several workers, each with common values and values of its own."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from support.charts import Chart, Refused

VALUES: dict[str, Any] = {
    "env": {"REDIS_HOST": "redis", "LOG_FORMAT": "json", "GRACE_PERIOD": 40},
    "secrets": {"REDIS_PASSWORD": "all"},
    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
    "tolerations": [{"key": "consumer", "operator": "Exists"}],
    "consumers": [
        {"name": "image", "type": "image", "queue": "predict", "resources": {"requests": {"cpu": "4"}}},
        {
            "name": "zip",
            "type": "zip",
            "queue": "predict",
            "replicas": 0,
            "env": {"LOG_FORMAT": "text", "GRACE_PERIOD": None, "REDIS_HOST": ""},
            "secrets": {"AWS_SECRET_ACCESS_KEY": "own"},
            "tolerations": [],
        },
        {"name": "own", "fullnameOverride": "count-consumer", "serve": ["counter:Counter=count", "zip=count-zip"]},
    ],
}

IMAGE, ZIP, OWN = "cells-redis-consumer-image", "cells-redis-consumer-zip", "count-consumer"


def test_each_has_a_deployment(chart: Chart) -> None:
    assert set(chart.render(VALUES).all("Deployment")) == {IMAGE, ZIP, OWN}


def test_a_long_name_of_a_release_leaves_its_workers_theirs(chart: Chart) -> None:
    release = chart.render({"consumers": [{"name": "image"}, {"name": "images"}]}, name="cells-" * 8 + "long")
    names = list(release.all("Deployment"))
    assert [name.rpartition("-")[2] for name in names] == ["image", "images"]
    assert {len(name) <= 63 for name in names} == {True}


def test_type_and_queue_become_variables(chart: Chart) -> None:
    variables = chart.render(VALUES).variables(IMAGE)
    assert (variables["CONSUMER_TYPE"], variables["QUEUE"]) == ("image", "predict")


def test_what_is_not_given_is_inherited(chart: Chart) -> None:
    variables = chart.render(VALUES).variables(IMAGE)
    assert (variables["REDIS_HOST"], variables["LOG_FORMAT"], variables["GRACE_PERIOD"]) == ("redis", "json", "40")


def test_what_is_given_wins_also_where_it_is_empty(chart: Chart) -> None:
    release = chart.render(VALUES)
    variables = release.variables(ZIP)
    assert variables["LOG_FORMAT"] == "text"
    assert {"REDIS_HOST", "GRACE_PERIOD"}.isdisjoint(variables)
    assert release.all("Deployment")[ZIP]["spec"]["replicas"] == 0


def test_maps_are_merged_and_lists_replaced(chart: Chart) -> None:
    release = chart.render(VALUES)
    assert release.container(IMAGE)["resources"] == {"requests": {"cpu": "4", "memory": "1Gi"}}
    assert "tolerations" not in release.pod(ZIP)
    assert "tolerations" in release.pod(IMAGE)


def test_null_takes_out_what_is_inherited(chart: Chart) -> None:
    keys = ["env", "secrets", "resources", "tolerations", "podLabels", "podSecurityContext", "securityContext", "code"]
    inherited = {**VALUES, "podLabels": {"a": "b"}, "code": {"a.py": ""}}
    release = chart.render({**inherited, "consumers": [{"name": "image", **dict.fromkeys(keys)}]})
    assert set(release.variables(IMAGE)) == {"HEALTH_ADDRESS", "ORT_DISABLE_TELEMETRY"}
    assert {"envFrom", "resources", "securityContext"}.isdisjoint(release.container(IMAGE))
    assert {"tolerations", "securityContext"}.isdisjoint(release.pod(IMAGE))
    assert "ConfigMap" not in release.kinds


def test_no_worker_changes_what_the_next_one_inherits(chart: Chart) -> None:
    assert chart.render(VALUES).container(OWN)["resources"] == VALUES["resources"]


def test_secrets_are_the_release_s_and_each_worker_s_own(chart: Chart) -> None:
    release = chart.render(VALUES)
    found = {name: list(secret["data"]) for name, secret in release.all("Secret").items()}
    assert found == {"cells-redis-consumer": ["REDIS_PASSWORD"], f"{ZIP}-secrets": ["AWS_SECRET_ACCESS_KEY"]}
    names = [each["secretRef"]["name"] for each in release.container(ZIP)["envFrom"]]
    assert names == ["cells-redis-consumer", f"{ZIP}-secrets"]


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_worker_can_do_without_a_secret_of_the_release(chart: Chart, nothing: object) -> None:
    secrets = {"REDIS_PASSWORD": nothing, "AWS_SECRET_ACCESS_KEY": "own"}
    values = {"secrets": {"REDIS_PASSWORD": "all", "SENTRY": "x"}, "consumers": [{"name": "zip", "secrets": secrets}]}
    release = chart.render(values)
    assert release.container(ZIP)["envFrom"] == [{"secretRef": {"name": f"{ZIP}-secrets"}}]
    assert set(release.all("Secret")[f"{ZIP}-secrets"]["data"]) == {"AWS_SECRET_ACCESS_KEY", "SENTRY"}


@pytest.mark.parametrize(("env", "is_hidden"), [({}, False), ({"REDIS_PORT": 3}, True)])
def test_a_worker_s_secret_wins_over_the_release_s_variable(chart: Chart, env: dict[str, Any], is_hidden: bool) -> None:
    entry = {"name": "zip", "secrets": {"REDIS_PORT": 2}, "env": env}
    release = chart.render({"env": {"REDIS_PORT": 1}, "consumers": [entry]})
    assert ("REDIS_PORT" in release.variables(ZIP)) is is_hidden


def test_a_worker_s_own_queue_wins_over_its_secret(chart: Chart) -> None:
    entry = {"name": "zip", "queue": "predict", "secrets": {"QUEUE": "track"}}
    assert chart.render({"consumers": [entry]}).variables(ZIP)["QUEUE"] == "predict"


def test_a_secret_is_coded_as_a_cluster_wants_it(chart: Chart) -> None:
    data = chart.render(VALUES).all("Secret")["cells-redis-consumer"]["data"]
    assert base64.b64decode(data["REDIS_PASSWORD"]) == b"all"


def test_pods_are_renewed_with_their_secrets(chart: Chart) -> None:
    changed = {**VALUES, "secrets": {"REDIS_PASSWORD": "new"}}
    pods = [chart.render(values).one("Deployment")["spec"]["template"] for values in ({}, {"secrets": {"A": "b"}})]
    assert pods[0]["metadata"]["annotations"] != pods[1]["metadata"]["annotations"]
    assert chart.render(changed).all("Deployment")[OWN] != chart.render(VALUES).all("Deployment")[OWN]


def test_several_queues_in_one_worker(chart: Chart) -> None:
    assert chart.render(VALUES).container(OWN)["command"] == [
        *("redis-consumer", "run"),
        *("--serve", "counter:Counter=count"),
        *("--serve", "zip=count-zip"),
    ]


def test_no_worker_selects_the_pods_of_another(chart: Chart) -> None:
    deployments = chart.render(VALUES).all("Deployment").values()
    selectors = {tuple(each["spec"]["selector"]["matchLabels"].items()) for each in deployments}
    assert len(selectors) == len(VALUES["consumers"])


def test_notes_name_workers_and_queues(chart: Chart) -> None:
    notes = chart.render(VALUES).notes
    assert f"{IMAGE} takes jobs from predict: 1 worker." in notes
    assert f"{ZIP} takes jobs from predict-zip: 0 workers." in notes
    assert f"{OWN} takes jobs from count, count-zip: 1 worker." in notes
    assert "redis-consumer queues --queue predict --queue predict-zip --queue count --queue count-zip" in notes


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"consumers": [{"name": "a"}, {"name": "a"}]}, "cells-redis-consumer-a is also the name of another"),
        ({"consumers": [{"name": "exporter"}]}, "cells-redis-consumer-exporter is also the name of another"),
        ({"serve": ["image=predict"], "queue": "predict"}, "leave type and queue empty"),
        ({"hpa": {"enabled": True}, "keda": {"enabled": True}}, "enable one"),
        (
            {
                "fullnameOverride": "x-secrets",
                "secrets": {"A": "1"},
                "consumers": [{"name": "b", "fullnameOverride": "x", "secrets": {"B": "2"}}],
            },
            "x: its Secret would have the name x-secrets, which another Secret has",
        ),
        ({"networkPolicy": {"enabled": True}, "secrets": {"REDIS_PORT": "abc"}}, "REDIS_PORT=abc is not a port"),
        ({"serve": ["predict"]}, "/serve/0"),
        ({"consumers": [{"type": "image"}]}, "missing property 'name'"),
    ],
)
def test_what_contradicts_itself_is_refused(chart: Chart, values: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        chart.render(values)


def test_code_can_be_imported(chart: Chart) -> None:
    release = chart.render({"type": "mine:Mine", "code": {"mine.py": "class Mine: ..."}})
    assert release.one("ConfigMap")["data"] == {"mine.py": "class Mine: ..."}
    (mount,) = (each for each in release.container()["volumeMounts"] if each["name"] == "code")
    assert release.variables()["PYTHONPATH"] == mount["mountPath"]
    (volume,) = (each for each in release.pod()["volumes"] if each["name"] == "code")
    assert volume["configMap"]["name"] == release.one("ConfigMap")["metadata"]["name"]


def test_code_is_found_beside_the_modules_of_ones_own_path(chart: Chart) -> None:
    release = chart.render({"code": {"mine.py": ""}, "env": {"PYTHONPATH": "/opt/mine"}})
    assert release.variables()["PYTHONPATH"] == "/code:/opt/mine"
