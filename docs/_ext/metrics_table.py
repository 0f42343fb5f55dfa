"""Lists metrics and alerts from the code and the file of alert rules, so that the pages stay up to date.

``.. metrics-table:: worker`` and ``.. metrics-table:: queues`` list metrics, ``.. alert-rules::`` the alerts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

from redis_consumer.metrics import Metric, queues, worker

RULES = Path(__file__).parents[2] / "deploy/charts/redis-consumer/files/alerts.yaml"
GROUPS: dict[str, tuple[Metric, ...]] = {"worker": worker.ALL, "queues": queues.ALL}


class MetricsTable(Directive):
    """The directive for metrics."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make one table."""
        return _parsed(self, metric_rows(GROUPS[self.arguments[0]]))


class AlertRules(Directive):
    """The directive for alerts."""

    def run(self) -> list[nodes.Node]:
        """Make one table."""
        return _parsed(self, alert_rows(rules()))


def metric_rows(metrics: tuple[Metric, ...]) -> Iterator[str]:
    """A table of metrics as reStructuredText."""
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 44 14 42", "")
    yield from ("   * - Metric and its labels", "     - Kind", "     - Meaning")
    for metric in metrics:
        labels = f" {{{', '.join(metric.labels)}}}" if metric.labels else ""
        yield from (f"   * - ``{metric.name}``{labels}", f"     - {metric.kind}", f"     - {_escape(metric.meaning)}")
    yield ""


def rules() -> list[dict[str, Any]]:
    """The alert rules of the file."""
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def alert_rows(alerts: list[dict[str, Any]]) -> Iterator[str]:
    """A table of alerts as reStructuredText."""
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 30 12 58", "")
    yield from ("   * - Alert", "     - Severity", "     - What it says")
    for alert in alerts:
        said = f"{alert['annotations']['summary']}. {alert['annotations']['description']}"
        yield from (f"   * - ``{alert['alert']}``", f"     - {alert['labels']['severity']}", f"     - {_plain(said)}")
    yield ""


def _plain(template: str) -> str:
    """A template's words, with a dot for each number or name that Prometheus puts in."""
    return _escape(re.sub(r"\{\{.*?\}\}", "…", template))


def _escape(text: str) -> str:
    return re.sub(r"([*`|\\_])", r"\\\1", text)


def _parsed(directive: Directive, lines: Iterator[str]) -> list[nodes.Node]:
    holder = nodes.container()
    directive.state.nested_parse(StringList(list(lines), source="redis_consumer.metrics"), 0, holder)
    return holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.add_directive("metrics-table", MetricsTable)
    app.add_directive("alert-rules", AlertRules)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
