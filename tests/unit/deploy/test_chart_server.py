"""A release's web server: its pod, Service, Ingress, secrets and network, and values that would let everybody in."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from redis_consumer.cli.app import app
from redis_consumer.settings import Settings
from support.charts import Chart, Refused, Release

NAME = "cells-redis-consumer-server"
TOKENS = json.dumps({"tokens": []})


def release_of(chart: Chart, server: dict[str, Any] | None = None, **values: Any) -> Release:
    return chart.render({**values, "server": {"enabled": True, **(server or {})}})


def test_there_is_none_by_default(chart: Chart) -> None:
    assert chart.render({"server": {"ingress": {"enabled": True}}}).kinds == ["Deployment"]


def test_its_pod_has_no_rights_and_places_for_its_files(chart: Chart) -> None:
    release = release_of(chart)
    pod, container = release.pod(NAME), release.container(NAME)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {each["mountPath"] for each in container["volumeMounts"]} == {"/tmp", "/data"}
    assert {"name": "data", "emptyDir": {"sizeLimit": "50Gi"}} in pod["volumes"]
    assert release.variables(NAME)["WEB_FOLDER"] == "/data"


def test_its_command_and_variables_exist(chart: Chart) -> None:
    release = release_of(chart, {"ingress": {"enabled": True, "host": "cells.example.org"}, "tokens": TOKENS})
    program, command, *options = release.container(NAME)["command"]
    assert (program, command) == ("redis-consumer", "serve")
    assert options == ["--host", "0.0.0.0", "--port", "8080"]
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    assert set(release.variables(NAME)) <= {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_do_not_depend_on_redis(chart: Chart, probe: str) -> None:
    container = release_of(chart, {"port": 9000}).container(NAME)
    assert container[probe]["httpGet"] == {"path": "/live", "port": "http"}
    assert container["ports"] == [{"name": "http", "containerPort": 9000}]


def test_its_service_finds_its_pod(chart: Chart) -> None:
    release = release_of(chart, {"service": {"type": "LoadBalancer", "port": 8000}})
    spec = release.one("Service")["spec"]
    labels = release.all("Deployment")[NAME]["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"].items() <= labels.items()
    assert spec["type"] == "LoadBalancer"
    assert spec["ports"] == [{"name": "http", "port": 8000, "targetPort": "http"}]
    workers = release.all("Deployment")["cells-redis-consumer"]["spec"]["template"]["metadata"]["labels"]
    assert not spec["selector"].items() <= workers.items()


@pytest.mark.parametrize(("secret", "address"), [("", "http://a.example.org"), ("tls", "https://a.example.org")])
def test_the_ingress_gives_the_address_of_links(chart: Chart, secret: str, address: str) -> None:
    release = release_of(chart, {"ingress": {"enabled": True, "host": "a.example.org", "tlsSecret": secret}})
    spec = release.one("Ingress")["spec"]
    (rule,) = spec["rules"]
    (path,) = rule["http"]["paths"]
    assert (rule["host"], path["path"]) == ("a.example.org", "/")
    assert path["backend"]["service"] == {"name": NAME, "port": {"name": "http"}}
    assert spec.get("tls") == ([{"hosts": ["a.example.org"], "secretName": "tls"}] if secret else None)
    assert release.variables(NAME)["PUBLIC_URL"] == address
    assert address in release.notes


def test_the_address_of_links_can_be_set(chart: Chart) -> None:
    ingress = {"enabled": True, "host": "a.example.org"}
    release = release_of(chart, {"ingress": ingress, "env": {"PUBLIC_URL": "https://b.example.org"}})
    assert release.variables(NAME)["PUBLIC_URL"] == "https://b.example.org"


def test_it_has_the_settings_of_the_release_and_its_own(chart: Chart) -> None:
    release = release_of(
        chart,
        {"env": {"WEB_MAX_WAITING": 50}, "secrets": {"WEB_SECRET": "s", "REDIS_PASSWORD": "own"}},
        env={"REDIS_HOST": "redis", "REDIS_PASSWORD": "shown"},
        secrets={"REDIS_PASSWORD": "shared"},
        envFrom=[{"secretRef": {"name": "cloud"}}],
    )
    variables = release.variables(NAME)
    assert (variables["REDIS_HOST"], variables["WEB_AUTH"], variables["WEB_MAX_WAITING"]) == ("redis", "token", "50")
    assert "REDIS_PASSWORD" not in variables, "a variable would override its secret"
    sources = [each["secretRef"]["name"] for each in release.container(NAME)["envFrom"]]
    assert sources == ["cells-redis-consumer", NAME, "cloud"]
    data = release.all("Secret")[NAME]["data"]
    assert {key: base64.b64decode(text) for key, text in data.items()} == {"WEB_SECRET": b"s", "REDIS_PASSWORD": b"own"}
    worker = release.container("cells-redis-consumer")
    assert NAME not in json.dumps(worker), "workers need none of its secrets"


def test_a_bucket_in_a_volume_is_there(chart: Chart) -> None:
    volumes = [{"name": "bucket", "persistentVolumeClaim": {"claimName": "bucket"}}]
    mounts = [{"name": "bucket", "mountPath": "/bucket"}]
    release = release_of(chart, volumes=volumes, volumeMounts=mounts)
    assert volumes[0] in release.pod(NAME)["volumes"]
    assert mounts[0] in release.container(NAME)["volumeMounts"]


@pytest.mark.parametrize(
    ("given", "secret"), [({"tokens": TOKENS}, f"{NAME}-tokens"), ({"tokensSecret": "people"}, "people")]
)
def test_tokens_come_from_a_secret(chart: Chart, given: dict[str, str], secret: str) -> None:
    release = release_of(chart, given)
    assert {"name": "tokens", "secret": {"secretName": secret}} in release.pod(NAME)["volumes"]
    assert release.variables(NAME)["WEB_TOKENS"] == "/tokens/tokens.json"
    if "tokens" in given:
        assert base64.b64decode(release.all("Secret")[secret]["data"]["tokens.json"]).decode() == TOKENS
    assert "tokens new" not in release.notes


def test_without_tokens_the_notes_say_how_to_make_one(chart: Chart) -> None:
    assert f"exec deployment/{NAME} -- redis-consumer tokens new NAME" in release_of(chart).notes


def test_a_claim_is_used_by_one_pod_at_a_time(chart: Chart) -> None:
    release = release_of(chart, {"claim": "web"})
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "web"}} in release.pod(NAME)["volumes"]
    assert release.all("Deployment")[NAME]["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"env": {"WEB_AUTH": "none"}}, "everybody who can reach the server"),
        ({"env": {"WEB_AUTH": None}}, "everybody who can reach the server"),
        ({"env": {"WEB_AUTH": "proxy"}}, "set server.env.TRUSTED_PROXIES"),
        ({"tokens": TOKENS, "tokensSecret": "people"}, "give one"),
        ({"ingress": {"enabled": True}}, "set server.ingress.host"),
        ({"ingress": {"enabled": True, "host": "https://a"}}, "/server/ingress/host"),
        ({"replicas": 2}, "'replicas'"),
        ({"service": {"type": "Cluster"}}, "/server/service/type"),
    ],
)
def test_wrong_values_are_refused_by_name(chart: Chart, server: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        release_of(chart, server)


def test_a_login_in_a_secret_is_read_or_believed(chart: Chart) -> None:
    release_of(chart, {"env": {"WEB_AUTH": None}, "secrets": {"WEB_AUTH": "token"}})
    release_of(chart, {"env": {"WEB_AUTH": None}}, envFrom=[{"secretRef": {"name": "settings"}}])


def test_without_login_it_is_open_by_its_own_names_only(chart: Chart) -> None:
    ingress = {"enabled": True, "host": "a.example.org"}
    release = release_of(chart, {"openToAll": True, "env": {"WEB_AUTH": "none"}, "ingress": ingress})
    assert "--open-to-all" in release.container(NAME)["command"]
    hosts = release.variables(NAME)["WEB_HOSTS"].split(",")
    assert {"localhost", NAME, f"{NAME}.deepcell.svc.cluster.local", "a.example.org"} <= set(hosts)


def test_users_reach_it_and_only_it(chart: Chart) -> None:
    users = [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]
    release = release_of(
        chart, {"port": 8800, "env": {"REDIS_PORT": 6380}}, networkPolicy={"enabled": True, "users": users}
    )
    policies = release.all("NetworkPolicy")
    own = policies[NAME]["spec"]
    assert own["ingress"] == [{"from": users, "ports": [{"protocol": "TCP", "port": 8800}]}]
    assert own["policyTypes"] == ["Ingress"]
    assert own["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "server"
    redis = policies["cells-redis-consumer"]["spec"]["egress"][1]["ports"]
    assert [each["port"] for each in redis] == [6379, 6380]


def test_no_entry_can_have_its_name(chart: Chart) -> None:
    with pytest.raises(Refused, match="of the exporter or of the server"):
        chart.render({"consumers": [{"name": "server"}]})


def test_the_image_has_the_command(chart: Chart) -> None:
    consumers = [{"name": "image", "image": {"repository": "example.org/own", "tag": "1"}}]
    assert release_of(chart, consumers=consumers).container(NAME)["image"] == "example.org/own:1"
    release = release_of(chart, {"image": {"tag": "2"}}, consumers=consumers)
    assert release.container(NAME)["image"] == "example.org/own:2"
