"""Scrapes `redis-consumer metrics` as Prometheus does, to compare its figures with the ledger."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from chaos.servers import Process, free_port, python_variables

START_S = 30.0
ENDED = "redis_consumer_queue_ended_total"


def scraped(settings: Mapping[str, str], queue: str, folder: Path) -> dict[str, int]:
    """Start the exporter with the workers' settings, ask it once, and return the jobs that ended by how.

    Raises:
        RuntimeError: it doesn't answer, or says that Redis doesn't.
    """
    port, exporter = free_port(), Process(folder / "exporter.log")
    command = [sys.executable, "-m", "redis_consumer", "metrics", "--queue", queue, "--listen", f"127.0.0.1:{port}"]
    exporter.launch(command, variables={**python_variables(), **settings})
    try:
        text = _asked(port)
    finally:
        exporter.end()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    ended = {
        one.labels["status"]: int(one.value) for one in samples if (one.name, one.labels.get("queue")) == (ENDED, queue)
    }
    if not ended:
        raise RuntimeError(f"the exporter has no metrics of the queue: {text}")
    return ended


def _asked(port: int) -> str:
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=START_S) as reply:
                return str(reply.read().decode())
        except urllib.error.URLError as error:
            if time.monotonic() > deadline:
                raise RuntimeError("the exporter doesn't start; see its log") from error
        time.sleep(0.05)
