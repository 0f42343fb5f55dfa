"""Makes the tables of the documentation that describe settings, metrics, options and tests of consumers.

Each table is reStructuredText, made from the code itself. `tools.write_pages` writes the tables into the pages.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from redis_consumer.consumers.catalogue import describe
from redis_consumer.consumers.registry import BUILT_IN
from redis_consumer.metrics import Metric, queues, worker
from redis_consumer.settings import Settings
from redis_consumer.settings.settings import allowed_values
from redis_consumer.testing import ConsumerContract

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy/charts/redis-consumer/files/alerts.yaml"
METRICS: dict[str, tuple[Metric, ...]] = {"worker": worker.ALL, "queues": queues.ALL}
#: Consumers whose options are listed besides those of the built-in ones.
EXAMPLES = ("cell_classes:CellClasses", "format_converter:FormatConverter", "nuclear_counter:NuclearCounter")
_WIDTH = 120

# Descriptions of defaults that are computed from other settings or from the machine.
DEPENDENT = {
    "HOSTNAME": "host and process id",
    "MIN_SCALE": "1 / MAX_SCALE",
    "MODEL_SERVER": "tfs://TF_HOST:TF_PORT",
    "CALIBAN_MODEL": "TRACKING_MODEL",
    "MESMER_MODEL": "MULTIPLEX_MODEL",
}


def settings() -> Iterator[str]:
    """List all settings, a section for each group."""
    for title, names in groups().items():
        yield from (title, "~" * len(title), "", *setting_rows(names))


def setting_rows(names: Iterable[str]) -> Iterator[str]:
    """List some settings with default, meaning and allowed values."""
    yield from _table("27 20 53", ("Setting", "Default", "Meaning; values"), map(_setting_row, names))


def changes(lines: Iterable[str]) -> Iterator[str]:
    """List settings with default, meaning and what changed, from lines such as ``TF_HOST, TF_PORT: the same``."""
    rows = (
        (f"``{name}``\n\n{_default(name)}", markup(_field(name).description), change)
        for names, _, change in (line.partition(": ") for line in lines)
        for name in names.split(", ")
    )
    yield from _table("34 32 34", ("Variable, default", "What it does", "What changed"), rows)


def groups() -> dict[str, list[str]]:
    """The settings' names by the first words of the classes that group them."""
    found: dict[str, list[str]] = {}
    for each in reversed(Settings.__mro__):
        names = [name.upper() for name in vars(each).get("__annotations__", {}) if name in Settings.model_fields]
        if names:
            found[str(each.__doc__).splitlines()[0].rstrip(".")] = names
    return found


def metric_rows(metrics: Iterable[Metric]) -> Iterator[str]:
    """List metrics with their labels, kind and meaning."""
    rows = ((_with_labels(metric), metric.kind, _plain(metric.meaning)) for metric in metrics)
    yield from _table("44 14 42", ("Metric and its labels", "Kind", "Meaning"), rows)


def rules() -> list[dict[str, Any]]:
    """Read the alert rules of the chart."""
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def alert_rows(alerts: Iterable[dict[str, Any]]) -> Iterator[str]:
    """List alerts with severity and text, with a dot for each number or name that Prometheus puts in."""
    rows = (
        (
            f"``{alert['alert']}``",
            alert["labels"]["severity"],
            _plain(re.sub(r"\{\{.*?\}\}", "…", "{summary}. {description}".format(**alert["annotations"]))),
        )
        for alert in alerts
    )
    yield from _table("30 12 58", ("Alert", "Severity", "What it says"), rows)


def option_rows() -> Iterator[str]:
    """List the options of the built-in consumers and of the examples."""
    listed = [describe(name) for name in (*BUILT_IN, *(f"examples.{name}" for name in EXAMPLES))]
    rows = (
        (
            f"``{consumer.name if consumer.name in BUILT_IN else consumer.path.rpartition(':')[2]}``",
            f"``{option.name}``",
            "job, or operator" if option.is_per_job else "operator",
            _plain(option.kind),
            "required" if option.default is None else f"``{option.default}``",
            markup(option.description),
        )
        for consumer in listed
        for option in consumer.options
    )
    yield from _table("18 14 14 20 12 22", ("Consumer", "Option", "Set by", "Values", "Default", "Meaning"), rows)
    without = ", ".join(f"``{consumer.name}``" for consumer in listed if not consumer.options)
    yield from (f"These consumers have no options: {without}.", "")


def contract_attributes() -> Iterator[str]:
    """List the attributes that a class derived from ``ConsumerContract`` sets."""
    defaults = _defaults_of(ConsumerContract)
    rows = ((f"``{name}``", defaults[name], meaning) for name, meaning in attributes_of(ConsumerContract).items())
    yield from _table("20 25 55", ("Attribute", "Default", "Meaning"), rows)


def contract_tests() -> Iterator[str]:
    """List the tests of ``ConsumerContract`` with what each checks."""
    tests = {name: test for name, test in vars(ConsumerContract).items() if name.startswith("test_")}
    rows = ((f"``{name}``", markup(_one_line(inspect.getdoc(test)))) for name, test in tests.items())
    yield from _table("45 55", ("Test", "What it checks, or why"), rows)


def attributes_of(kind: type) -> dict[str, str]:
    """Read the section ``Attributes:`` of a class's docstring: a description for each name."""
    section = re.split(r"^Attributes:\n", inspect.getdoc(kind) or "", flags=re.MULTILINE)[1]
    parts = re.split(r"^ {4}(\w+): ", section.split("\n\n")[0], flags=re.MULTILINE)[1:]
    return {name: _phrase(_one_line(text)) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _defaults_of(kind: type) -> dict[str, str]:
    """The default of each annotated attribute of a class, as its source writes it; files by their names."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            value = getattr(kind, node.target.id, None)
            text = ", ".join(map(str, value)) if isinstance(value, dict) and value else ""
            text = text or (ast.unparse(node.value) if node.value else "")
            found[node.target.id] = "required" if not text else "none" if text in {"()", "{}"} else f"``{text}``"
    return found


def _setting_row(name: str) -> tuple[str, ...]:
    values = allowed_values(name)
    meaning = markup(_field(name).description) + (f". Takes {markup(values)}" if values else "")
    return (f"``{name}``", _default(name), meaning)


def _field(name: str) -> Any:
    return Settings.model_fields[name.lower()]


def _default(name: str) -> str:
    if name in DEPENDENT:
        return markup(DEPENDENT[name])
    if _field(name).default_factory is not None:
        raise ValueError(f"setting {name}: its default is worked out; say in DEPENDENT from what")
    value = _field(name).default
    if value is None or value == "":
        return "none"
    return f"``{str(value).lower() if isinstance(value, bool) else value}``"


def _with_labels(metric: Metric) -> str:
    return f"``{metric.name}``" + (f" {{{', '.join(metric.labels)}}}" if metric.labels else "")


def _phrase(text: str) -> str:
    return markup(text[:1].upper() + text[1:].rstrip("."))


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def markup(text: str | None) -> str:
    """Write a description as reStructuredText: text between backticks is code, all else is plain."""
    parts = re.sub("`+", "`", text or "").split("`")
    return "".join(f"``{part}``" if number % 2 else _plain(part) for number, part in enumerate(parts))


def _plain(text: str) -> str:
    return re.sub(r"([*`|\\_])", r"\\\1", text)


def _table(widths: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Write a table; a cell of several paragraphs has empty lines between them."""
    yield from (".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", "")
    for row in (heads, *rows):
        for number, cell in enumerate(row):
            yield from _cell("   * - " if number == 0 else "     - ", cell)
    yield ""


def _cell(start: str, text: str) -> Iterator[str]:
    wrap: Callable[..., list[str]] = textwrap.wrap
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ""
        yield from wrap(
            paragraph,
            _WIDTH,
            initial_indent=" " * len(start) if number else start,
            subsequent_indent=" " * len(start),
            break_long_words=False,
            break_on_hyphens=False,
        )
