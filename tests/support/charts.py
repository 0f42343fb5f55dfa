"""Manifests of the Helm chart: rendered by Helm and checked against the schemas of a cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "charts" / "redis-consumer"
CUSTOM_RESOURCES = Path(__file__).parent / "custom_resources"
#: The oldest cluster that the chart is for, and the newest that schemas are known of.
CLUSTERS = ("1.25", "1.37")
#: Fields of a specification that the chart gives by the cluster's version, since the oldest doesn't know them.
NOT_FOR_THE_OLDEST = {"PodDisruptionBudget": {"unhealthyPodEvictionPolicy"}}

Manifest = dict[str, Any]


class Refused(Exception):
    """Helm took the values or the chart for wrong; the text is Helm's."""


class Chart:
    """The chart of this repository, and a Helm that renders it in a process of its own."""

    def __init__(self) -> None:
        self._releases: dict[str, Release] = {}

    def __enter__(self) -> Chart:
        program = Path(__file__).parent / "helm_engine.py"
        self._process = subprocess.Popen(
            [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=10)

    def render(self, values: Manifest | str = "", *, name: str = "cells") -> Release:
        """What a release of this name consists of, by values or the text of their file.

        Raises:
            Refused: Helm refuses the values.
        """
        key = json.dumps([values, name])
        if key not in self._releases:
            self._releases[key] = Release(self._ask("render", values, name))
        return self._releases[key]

    def lint(self, values: Manifest | str = "") -> list[str]:
        """Errors and warnings that ``helm lint --strict`` gives."""
        info = 1
        return [found["error"] for found in self._ask("lint", values, "cells")["messages"] if found["severity"] > info]

    def _ask(self, call: str, values: Manifest | str, name: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question = {"call": call, "chart": str(CHART), "values": values, "name": name, "namespace": "deepcell"}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["result"]


class Release:
    """Manifests, by kind and name; each is one that a cluster would take."""

    def __init__(self, files: dict[str, str]) -> None:
        self.notes = next(text for path, text in files.items() if path.endswith("NOTES.txt"))
        texts = [text for path, text in sorted(files.items()) if path.endswith(".yaml")]
        self.manifests: list[Manifest] = [each for text in texts for each in yaml.safe_load_all(text) if each]
        for manifest in self.manifests:
            check(manifest)

    @property
    def kinds(self) -> list[str]:
        """Kinds of all manifests, sorted."""
        return sorted(manifest["kind"] for manifest in self.manifests)

    def all(self, kind: str) -> dict[str, Manifest]:
        """Manifests of a kind, by name."""
        return {each["metadata"]["name"]: each for each in self.manifests if each["kind"] == kind}

    def one(self, kind: str) -> Manifest:
        """The only manifest of a kind."""
        (found,) = self.all(kind).values()
        return found

    def pod(self, name: str | None = None) -> Manifest:
        """Specification of the pods of the Deployment of this name, or of the only one."""
        deployment = self.all("Deployment")[name] if name else self.one("Deployment")
        return dict(deployment["spec"]["template"]["spec"])

    def container(self, name: str | None = None) -> Manifest:
        """The container in that pod."""
        (found,) = self.pod(name)["containers"]
        return dict(found)

    def variables(self, name: str | None = None) -> dict[str, str]:
        """Variables of that container, without those of Secrets."""
        return {each["name"]: each["value"] for each in self.container(name).get("env", [])}


def check(manifest: Manifest) -> None:
    """Whether a cluster would take a manifest, as far as its schema says; unknown fields are refused.

    Raises:
        jsonschema.ValidationError: it would not.
    """
    own = CUSTOM_RESOURCES / f"{manifest['kind']}.json"
    if own.exists():
        jsonschema.validate(manifest, _schema(own))
        return
    oldest, newest = CLUSTERS
    kubernetes_validate.validate(manifest, newest, strict=True)
    later = NOT_FOR_THE_OLDEST.get(manifest["kind"], set())
    if later:
        manifest = {**manifest, "spec": {key: each for key, each in manifest["spec"].items() if key not in later}}
    kubernetes_validate.validate(manifest, oldest, strict=True)


@cache
def _schema(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
