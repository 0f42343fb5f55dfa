"""Dashboard, alerts and pages name all metrics, and no others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from tools import page_tables

from redis_consumer.metrics import Histogram, Metric, queues, worker
from support.documents import PAGES, ROOT, name_of

DASHBOARD = ROOT / "deploy/charts/redis-consumer/files/dashboard.json"
METRICS: dict[str, Metric] = {metric.name: metric for metric in (*worker.ALL, *queues.ALL)}
SAMPLES = {
    name
    for metric in METRICS.values()
    for name in (
        [f"{metric.name}{end}" for end in ("_bucket", "_sum", "_count")]
        if isinstance(metric, Histogram)
        else [metric.name]
    )
}
#: What Grafana puts in.
VARIABLES = {"$__rate_interval": "5m", "$queue": "predict"}


def panels() -> list[dict[str, Any]]:
    return [each for each in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"] if each["type"] != "row"]


def expressions() -> dict[str, str]:
    found = {rule["alert"]: rule["expr"] for rule in page_tables.rules()}
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"]
            for variable, value in VARIABLES.items():
                text = text.replace(variable, value)
            found[f"{panel['title']} {target['refId']}"] = text
    return found


def selectors(text: str) -> Iterator[tuple[str, set[str]]]:
    """Names of the samples that an expression selects, with the labels that it selects by."""
    for each, _ in selected(text):
        yield str(each.name), {matcher.name for matcher in each.matchers.matchers}


def selected(text: str) -> list[tuple[Any, list[Any]]]:
    """What an expression selects, each with the aggregations that it goes through, the outermost first."""
    around: list[Any] = []
    found: list[tuple[Any, list[Any]]] = []

    def enter(each: Any) -> None:
        around.append(each)
        if isinstance(each, promql_parser.VectorSelector):
            found.append((each, [one for one in around if isinstance(one, promql_parser.AggregateExpr)]))

    def leave(_: Any) -> None:
        around.pop()

    promql_parser.walk(promql_parser.parse(text), pre_visit=enter, post_visit=leave)
    return found


def labels_by(aggregation: Any) -> set[str]:
    return set(aggregation.modifier.labels) if aggregation.modifier else set()


def metric_of(sample: str) -> Metric:
    return METRICS.get(sample) or METRICS[re.sub(r"_(bucket|sum|count)$", "", sample)]


@pytest.mark.parametrize("name", expressions())
def test_expressions_can_be_read_and_name_what_there_is(name: str) -> None:
    found = list(selectors(expressions()[name]))
    assert found
    assert {sample for sample, _ in found} <= SAMPLES
    for sample, labels in found:
        assert labels <= {*metric_of(sample).labels, "le"}


@pytest.mark.parametrize("name", expressions())
def test_a_queue_that_several_exporters_tell_of_counts_once(name: str) -> None:
    for selector, aggregations in selected(expressions()[name]):
        metric = metric_of(selector.name)
        if metric not in queues.ALL or name == "RedisConsumerExporterAbsent":
            continue
        assert aggregations, "each exporter's restart would be another series"
        *outer, inner = aggregations
        assert str(inner.op) in ("max", "min"), "of the same number told twice, one is taken"
        fixed = {each.name for each in selector.matchers.matchers if each.op == promql_parser.MatchOp.Equal}
        if outer:
            assert labels_by(inner) >= {"namespace", *metric.labels} - fixed, "different numbers aren't mixed"


@pytest.mark.parametrize("rule", page_tables.rules(), ids=lambda rule: rule["alert"])
def test_an_alert_is_of_one_namespace(rule: dict[str, Any]) -> None:
    aggregations = [each for _, found in selected(rule["expr"]) for each in found]
    assert all("namespace" in labels_by(each) for each in aggregations)


def test_the_dashboard_shows_every_metric() -> None:
    shown = {metric_of(sample).name for text in expressions().values() for sample, _ in selectors(text)}
    assert shown == set(METRICS)


def test_panels_lie_beside_and_below_one_another() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)


def test_panels_have_numbers_of_their_own() -> None:
    numbers = [panel["id"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("rule", page_tables.rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert re.fullmatch(r"\d+[smh]", rule["for"])


def promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool on PATH; Debian's package prometheus has it")
    run = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", str(page_tables.RULES))


#: By name, namespace and exporter. In "a" a second exporter comes, and the first one goes while alerts wait.
SERIES = {
    ('queue_unfinished_jobs{queue="q"', "a", "old"): "3x25 stale",
    ('queue_unfinished_jobs{queue="q"', "a", "new"): "_x20 3x20",
    ('queue_workers{queue="q"', "a", "old"): "0x25 stale",
    ('queue_workers{queue="q"', "a", "new"): "_x20 0x20",
    ('queue_swept_total{queue="q"', "a", "old"): "0x20 1+1x3 4 stale",
    ('queue_swept_total{queue="q"', "a", "new"): "_x20 1+1x3 4x20",
    ('queue_unfinished_jobs{queue="q"', "b", "old"): "5x60",
    ('queue_workers{queue="q"', "b", "old"): "2x60",
    ('queue_oldest_waiting_seconds{queue="q"', "b", "old"): "0+60x60",
    ('queue_ended_total{status="done",queue="q"', "b", "old"): "10x60",
    ('queue_ended_total{status="done",queue="q"', "a", "old"): "10+5x20",
}


@pytest.mark.slow
def test_alerts_tell_namespaces_apart_and_outlive_an_exporter(tmp_path: Path) -> None:
    fired = {"RedisConsumerNoWorkers": "a", "RedisConsumerQueueStuck": "b"}
    case = {
        "interval": "1m",
        "input_series": [
            {"series": f'redis_consumer_{name},namespace="{namespace}",pod="{pod}"}}', "values": values}
            for (name, namespace, pod), values in SERIES.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname, namespace) (ALERTS{alertstate="firing",namespace!=""})',
                "eval_time": "29m",
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}",namespace="{namespace}"}}', "value": 1}
                    for alert, namespace in fired.items()
                ],
            }
        ],
    }
    tests = {"rule_files": [str(page_tables.RULES)], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    promtool("test", "rules", str(tmp_path / "tests.yaml"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_name_metrics_that_there_are(page: Any) -> None:
    named = set(re.findall(r"\bredis_consumer_[a-z_]+\b", page.read_text(encoding="utf-8")))
    told = {name for name in named if name.endswith(("_total", "_seconds", "_jobs", "_up", "_info"))}
    assert told <= set(METRICS)
