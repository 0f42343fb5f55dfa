"""Renders charts by the real Helm engine, for a test process that shall not have a Go runtime with its threads in it.

Reads one JSON object a line, ``{"call": "render" or "lint", "chart": path, …}``, and answers each by one:
``{"result": …}`` or ``{"error": text}``. Values are an object, or the YAML text of a values file.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any

import helm_python

load = cache(helm_python.Chart.load)


def answer(call: str, chart: str, values: dict[str, Any] | str, name: str, namespace: str) -> dict[str, Any]:
    """What Helm says to these values."""
    try:
        if isinstance(values, str):
            values = helm_python.values_from_yaml(values)
        if call == "lint":
            return {"result": helm_python.lint(chart, values, strict=True, namespace=namespace)}
        return {"result": load(chart).render(values, name=name, namespace=namespace, is_install=True)}
    except helm_python.HelmError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(**json.loads(line))) + "\n")
        sys.stdout.flush()
