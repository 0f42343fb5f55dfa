"""``redis-consumer new-consumer``: writes a package for a new consumer from the templates in this folder."""

from __future__ import annotations

import json
import keyword
import re
import shlex
from collections.abc import Iterator
from enum import Enum
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated
from urllib.parse import urlsplit
from urllib.request import url2pathname

import typer

from redis_consumer import __version__
from redis_consumer.cli.output import notes
from redis_consumer.consumers import registry
from redis_consumer.errors import SettingsError

TEMPLATES = Path(__file__).with_name("templates")
COMMON = "common"
#: Kinds of consumers. Each has a folder of templates, besides `COMMON`.
KINDS = ("image", "model", "files")
#: Variables with the models that jobs of a kind, or `doctor`, need. The last one is used by `analyze`.
_MODEL_VARIABLES = {"image": ["NUCLEAR_MODEL"], "model": ["NUCLEAR_MODEL", "DEFAULT_MODEL"], "files": []}
_SHIPPED_MODEL = "NuclearSegmentation:1"
#: The names of Deployments contain it, and may have 63 characters.
LONGEST_NAME = 40
_DISTRIBUTION, _EXTRAS = "kiosk-redis-consumer", "[onnx,testing]"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SUFFIX, _DOT, _PACKAGE = ".tmpl", "dot.", "package"


class Kind(str, Enum):
    """The kind of consumer."""

    IMAGE = "image"
    MODEL = "model"
    FILES = "files"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "new-consumer",
        epilog=notes(
            "redis-consumer new-consumer cell-counter", "redis-consumer new-consumer checksums --kind files --into work"
        ),
    )(new_consumer)


def new_consumer(
    name: Annotated[str, typer.Argument(help="Name of the consumer, its queue and its package, e.g. cell-counter.")],
    kind: Annotated[
        Kind,
        typer.Option(
            "--kind",
            help="image: measures the cells that a model finds. model: uses your own model, with your own input and "
            "output. files: handles any file, without a model.",
        ),
    ] = Kind.IMAGE,
    into: Annotated[Path, typer.Option("--into", file_okay=False, help="Parent folder for the new package.")] = Path(),
) -> None:
    """Write a package for your own consumer.

    It contains a class with options, tests, a Dockerfile and values for the Helm
    chart. It works without changes: its tests pass, and a worker can run it by name.
    """
    files = write_package(name, kind.value, into)
    typer.echo(f"Wrote {into / name}: {len(files)} files. Edit src/{package_of(name)}/consumer.py")
    typer.echo("Next steps (the last command needs a Redis on this machine):")
    for step in first_steps(name, kind.value, into / name):
        typer.echo(f"  {step}")


def check_name(name: str) -> None:
    """Refuse names that are not valid for a queue, a package and a Deployment.

    Raises:
        SettingsError: the name is not valid; the message says why and what to do.
    """
    package = package_of(name)
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        wrong = f"use at most {LONGEST_NAME} lower-case letters, digits and single dashes, e.g. cell-counter"
    elif keyword.iskeyword(package) or _is_module(package):
        wrong = f"{package} is already a keyword or module of Python; choose another name, e.g. my-{name}"
    elif keyword.iskeyword(class_of(name)):
        wrong = f"the class name {class_of(name)} is a keyword of Python; choose another name, e.g. my-{name}"
    elif class_of(name).startswith("Test"):
        wrong = f"pytest would treat the class {class_of(name)} as a test; choose another name, e.g. my-{name}"
    elif class_of(name) in _imported():
        wrong = f"the class name {class_of(name)} is already used; choose another name, e.g. my-{name}"
    elif name in registry.names():
        wrong = f"a consumer with this name already exists; choose another name, e.g. my-{name}"
    elif name.endswith("-zip"):
        wrong = "names that end in -zip are reserved for queues of archives; choose a name without -zip"
    else:
        return
    raise SettingsError(f"NAME {name!r}: {wrong}")


def package_of(name: str) -> str:
    """Return the Python package for a consumer's name.

    >>> package_of("cell-counter")
    'cell_counter'
    """
    return name.replace("-", "_")


def class_of(name: str) -> str:
    """Return the class name for a consumer's name.

    >>> class_of("cell-counter-2")
    'CellCounter2'
    """
    return "".join(part.capitalize() for part in name.split("-"))


def write_package(name: str, kind: str, into: Path) -> list[Path]:
    """Write a package for a consumer.

    Args:
        name: name of consumer, queue and package, see `check_name`.
        kind: one of `KINDS`.
        into: parent folder for the new package.

    Returns:
        The files.

    Raises:
        SettingsError: the name is not valid, the folder exists already, or it cannot be written.
    """
    check_name(name)
    folder = into / name
    if folder.exists():
        raise SettingsError(f"{folder}: already exists; choose another name, or another folder with --into")
    try:
        return _write(folder, name, kind)
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be written: {error.strerror}; choose a folder with --into") from error


def first_steps(name: str, kind: str, folder: Path) -> list[str]:
    """Return the shell commands that install a written package, run its tests and start a worker.

    The worker needs a Redis on this machine.

    Args:
        name: as for `write_package`.
        kind: as for `write_package`.
        folder: folder of the package.
    """
    own = _origin()
    return [
        f"cd {shlex.quote(str(folder))}",
        "python3 -m venv .venv",
        ". .venv/bin/activate",
        *([f"pip install {shlex.quote(own)}"] if own else []),
        "pip install --editable '.[dev]'",
        "pytest",
        "mkdir -p bucket",
        "export REDIS_HOST=localhost STORAGE_BUCKET=file://$PWD/bucket MODEL_SERVER=onnx://",
        f"export QUEUE={name} CONSUMER_TYPE={name}{_about_models(kind)['models']}",
        "redis-consumer run",
    ]


def _origin() -> str:
    """Return the pip requirement that installs this package from its origin; empty if it came from a package index."""
    try:
        text = distribution(_DISTRIBUTION).read_text("direct_url.json")
    except PackageNotFoundError:
        text = None
    if text is None:
        return ""
    origin = json.loads(text)
    url, vcs = str(origin["url"]), origin.get("vcs_info")
    if vcs is not None:
        return f"{_DISTRIBUTION}{_EXTRAS} @ {vcs['vcs']}+{url}@{vcs['commit_id']}"
    path = url2pathname(urlsplit(url).path)
    return f"{path}{_EXTRAS}" if url.startswith("file:") else f"{_DISTRIBUTION}{_EXTRAS} @ {url}"


def _write(folder: Path, name: str, kind: str) -> list[Path]:
    values = {
        "name": name,
        "package": package_of(name),
        "class_name": class_of(name),
        "title": name.replace("-", " ").capitalize(),
        "deployment": f"{name}-consumer",
        "version": __version__,
        **_about_models(kind),
    }
    files = []
    for template, place in _templates(kind):
        path = folder.joinpath(*(values["package"] if part == _PACKAGE else part for part in place.parts))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(template.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
        files.append(path)
    return files


def _is_module(name: str) -> bool:
    spec = find_spec(name)
    # Any folder in the working directory counts as a package without files.
    return spec is not None and spec.origin is not None


def _about_models(kind: str) -> dict[str, str]:
    """Return the model variables and the text about models for the README of a kind."""
    variables = _MODEL_VARIABLES[kind]
    told = (
        f"`{_SHIPPED_MODEL}` comes with redis_consumer. To use your own model, copy it to "
        f"`bucket/models/NAME/VERSION/model.onnx` and set `{variables[-1]}` to `NAME:VERSION`.\n"
        if variables
        else ""
    )
    return {"models": "".join(f" {name}={_SHIPPED_MODEL}" for name in variables), "of_models": told}


def _imported() -> set[str]:
    """List the names that templates import."""
    texts = [template.read_text(encoding="utf-8") for template in TEMPLATES.rglob(f"*.py{_SUFFIX}")]
    lines = [line for text in texts for line in re.findall(r"^(?:from \S+ )?import (.+)", text, re.MULTILINE)]
    return {name for line in lines for name in line.split(", ")}


def _templates(kind: str) -> Iterator[tuple[Path, Path]]:
    """Yield each template with the path of its file in a package called ``package``."""
    for root in (TEMPLATES / COMMON, TEMPLATES / kind):
        for template in sorted(root.rglob(f"*{_SUFFIX}")):
            name = template.name.removesuffix(_SUFFIX)
            shown = f".{name.removeprefix(_DOT)}" if name.startswith(_DOT) else name
            yield template, template.relative_to(root).with_name(shown)
