"""A release's network policy allows what workers need, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from support.charts import Chart

DNS = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]


def tcp(*ports: int) -> dict[str, Any]:
    return {"ports": [{"protocol": "TCP", "port": port} for port in ports]}


def spec_of(chart: Chart, values: dict[str, Any], **policy: Any) -> dict[str, Any]:
    release = chart.render({**values, "networkPolicy": {"enabled": True, **policy}})
    return dict(release.one("NetworkPolicy")["spec"])


@pytest.mark.parametrize("key", ["env", "secrets"])
@pytest.mark.parametrize(
    ("given", "redis", "models"),
    [
        ({}, [6379], [8500]),
        ({"REDIS_PORT": 26379, "TF_PORT": "9000"}, [6379, 26379], [9000]),
        ({"REDIS_PORT": " 26379 "}, [6379, 26379], [8500]),
        ({"REDIS_URL": "rediss://jobs:12@redis:6380/2"}, [6379, 6380], [8500]),
        ({"REDIS_URL": "rediss://redis"}, [6379], [8500]),
        ({"MODEL_SERVER": "oip://a:8001,b:8002"}, [6379], [8001, 8002]),
        ({"MODEL_SERVER": "tfs://[fd00::53]:8500,[::1]:8501/"}, [6379], [8500, 8501]),
        ({"MODEL_SERVER": "onnx://"}, [6379], []),
    ],
)
def test_ports_are_those_of_the_settings(
    chart: Chart, key: str, given: dict[str, Any], redis: list[int], models: list[int]
) -> None:
    egress = spec_of(chart, {key: given})["egress"]
    assert egress == [{"ports": DNS}, tcp(*redis), *([tcp(*models)] if models else []), tcp(443)]


def test_the_exporter_reaches_its_own_redis(chart: Chart) -> None:
    egress = spec_of(chart, {"exporter": {"enabled": True, "env": {"REDIS_PORT": 6380}}})["egress"]
    assert egress[1] == tcp(6379, 6380)


def test_peers_may_be_named(chart: Chart) -> None:
    peers = [{"podSelector": {"matchLabels": {"app": "redis"}}}]
    egress = spec_of(chart, {}, redis={"to": peers, "ports": [6380]}, extraEgress=[{"to": peers}])["egress"]
    assert egress[1] == {"to": peers, **tcp(6380)}
    assert egress[-1] == {"to": peers}


def test_only_probes_and_metrics_come_in(chart: Chart) -> None:
    scrapers = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
    spec = spec_of(chart, {"exporter": {"enabled": True}}, scrapers=scrapers)
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [{"from": scrapers, **tcp(8080, 9102)}]


def test_nothing_comes_in_where_nobody_listens(chart: Chart) -> None:
    assert "ingress" not in spec_of(chart, {"probes": {"enabled": False}})


def test_it_is_for_all_pods_of_the_release(chart: Chart) -> None:
    release = chart.render({"exporter": {"enabled": True}, "networkPolicy": {"enabled": True}})
    selected = release.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items()
    for deployment in release.all("Deployment").values():
        assert selected <= deployment["spec"]["template"]["metadata"]["labels"].items()
