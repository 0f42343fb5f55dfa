"""Do dashboard, alerts and pages name metrics that are told, and all of them?"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest

from redis_consumer.metrics import Histogram, Metric, queues, worker
from support.documents import DOCS, PAGES, ROOT, extension, name_of

table = extension("metrics_table")

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
    found = {rule["alert"]: rule["expr"] for rule in table.rules()}
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"]
            for variable, value in VARIABLES.items():
                text = text.replace(variable, value)
            found[f"{panel['title']} {target['refId']}"] = text
    return found


def selectors(text: str) -> Iterator[tuple[str, set[str]]]:
    """Names of the samples that an expression selects, with the labels that it selects by."""
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(text), pre_visit=lambda each: found.append(each))
    for each in found:
        if isinstance(each, promql_parser.VectorSelector):
            yield str(each.name), {matcher.name for matcher in each.matchers.matchers}


def metric_of(sample: str) -> Metric:
    return METRICS.get(sample) or METRICS[re.sub(r"_(bucket|sum|count)$", "", sample)]


@pytest.mark.parametrize("name", expressions())
def test_expressions_can_be_read_and_name_what_there_is(name: str) -> None:
    found = list(selectors(expressions()[name]))
    assert found
    assert {sample for sample, _ in found} <= SAMPLES
    for sample, labels in found:
        assert labels <= {*metric_of(sample).labels, "le"}


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


@pytest.mark.parametrize("rule", table.rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_what_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert re.fullmatch(r"\d+[smh]", rule["for"])


@pytest.mark.slow
def test_prometheus_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on PATH; Debian's package prometheus has it")
    run = subprocess.run([promtool, "check", "rules", table.RULES], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_name_metrics_that_there_are(page: Any) -> None:
    named = set(re.findall(r"\bredis_consumer_[a-z_]+\b", page.read_text(encoding="utf-8")))
    told = {name for name in named if name.endswith(("_total", "_seconds", "_jobs", "_up", "_info"))}
    assert told <= set(METRICS)


def test_the_page_lists_all_metrics_and_alerts() -> None:
    page = (DOCS / "monitor.rst").read_text(encoding="utf-8")
    assert re.findall(r"metrics-table:: (\w+)", page) == list(table.GROUPS)
    assert ".. alert-rules::" in page
    rows = "\n".join(row for metrics in table.GROUPS.values() for row in table.metric_rows(metrics))
    assert set(re.findall(r"``(redis_consumer_\w+)``", rows)) == set(METRICS)


def test_templates_become_words() -> None:
    rows = "\n".join(table.alert_rows(table.rules()))
    assert "{{" not in rows
    assert "Queue … is stuck" in rows
