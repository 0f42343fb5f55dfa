"""The page on Kubernetes shows values that the chart accepts, and their effects."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.charts import CHART, Chart, Refused
from support.documents import DOCS

PAGE = (DOCS / "deploy-kubernetes.rst").read_text(encoding="utf-8")
EXAMPLES = sorted((DOCS / "examples" / "kubernetes").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_can_be_installed(chart: Chart, path: Path) -> None:
    release = chart.render(path.read_text(encoding="utf-8"), name=path.stem)
    assert {"Deployment", "ScaledObject"} <= set(release.kinds)


def test_the_page_names_deployments_as_they_are(chart: Chart) -> None:
    text = (DOCS / "examples" / "kubernetes" / "cells.yaml").read_text(encoding="utf-8")
    named = re.findall(r"deployment/([a-z-]+)", PAGE)
    assert named
    assert set(named) <= set(chart.render(text).all("Deployment"))


def test_dotted_names_are_values() -> None:
    values: Any = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    names = re.findall(r"``([a-z][A-Za-z]+(?:\.[A-Za-z]+)+)[`:]", PAGE)
    known = [name for name in names if not name.startswith("env.")]
    assert known
    for name in known:
        reduce(lambda node, key: node[key], name.split("."), values)


def test_the_message_is_the_one_that_is_shown(chart: Chart) -> None:
    with pytest.raises(Refused) as refused:
        chart.render({"hpa": {"enable": True}})
    (shown,) = re.findall(r"defines::\n\n((?:   .*\n)+)", PAGE)
    assert [line[3:] for line in shown.splitlines()] == str(refused.value).strip().splitlines()
