"""Reads what Prometheus would read."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Sample = tuple[str, frozenset[tuple[str, str]]]


def samples_of(text: str) -> dict[Sample, float]:
    """Every sample by its name and labels."""
    families = text_string_to_metric_families(text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def names_of(text: str) -> set[str]:
    """Names of the metrics that are told, as in their TYPE lines."""
    return {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE")}


def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Status and state that a worker of this machine gives to a probe; 0 where it doesn't answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, {}


def scrape(port: int) -> str:
    """What is told at a port of this machine; raises OSError where nobody answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        return str(reply.read().decode())


def value(text: str, name: str, **labels: str) -> float | None:
    """One number, None where it isn't told."""
    return samples_of(text).get((name, frozenset(labels.items())))
