"""The exporter of the Helm chart gives KEDA the number of workers, with the chart's command and KEDA's query."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.charts import Chart, Release
from support.cli import CommandLine
from support.redis_server import RedisServer, free_port
from support.scraping import scrape
from support.worker import wait_for

EXPORTER = "cells-redis-consumer-exporter"


@pytest.fixture
def release(chart: Chart) -> Release:
    values = {"serve": ["image=raw", "zip=raw-zip"], "keda": {"enabled": True}, "exporter": {"port": free_port()}}
    return chart.render(values)


@pytest.fixture
def port(release: Release, redis_server: RedisServer, tmp_path: Path) -> Iterator[int]:
    """Where KEDA asks; the exporter's command runs there."""
    program, *arguments = release.container(EXPORTER)["command"]
    assert program == "redis-consumer"
    port = urllib.parse.urlsplit(triggers_of(release)[0]["url"]).port
    assert port is not None
    process = CommandLine.make(tmp_path, redis_server.port).start(*arguments)
    try:
        wait_for(lambda: text_at(port), "the exporter")
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=20)


def triggers_of(release: Release) -> list[dict[str, str]]:
    return [each["metadata"] for each in release.one("ScaledObject")["spec"]["triggers"]]


def text_at(port: int) -> str:
    try:
        return scrape(port)
    except OSError:
        return ""


def test_keda_finds_waiting_and_running_jobs(release: Release, port: int, redis_db: Any) -> None:
    redis_db.lpush("raw", "raw:a:1", "raw:b:1")
    redis_db.lpush("processing-raw:pod-1", "raw:c:1")
    wanted = [each["valueLocation"] for each in triggers_of(release)]
    wait_for(lambda: numbers_at(port, wanted) == [3, 0], "the jobs")


def numbers_at(port: int, locations: list[str]) -> list[float]:
    numbers = dict(line.rsplit(" ", 1) for line in scrape(port).splitlines() if not line.startswith("#"))
    return [float(numbers[location]) for location in locations]
