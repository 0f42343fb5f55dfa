"""Lists the kinds of jobs with the forms of their options, and the models."""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from redis_consumer.client.workers import read_facts
from redis_consumer.errors import ConsumerError
from redis_consumer.job import ModelId
from redis_consumer.models import ModelStore
from redis_consumer.models.store import packaged_models
from redis_consumer.redis import RedisClient
from redis_consumer.text import quoted
from redis_consumer.web.context import WebContext, context_of
from redis_consumer.web.problems import Problem, problems
from redis_consumer.web.v1.shapes import KindReply, ModelReply, Value

router = APIRouter()

#: Set of the queues that workers have served.
QUEUES_KEY = "redis-consumer:queues"
#: Seconds for which kinds, and the list of models, are kept.
_KEPT_S = 30.0
#: Seconds that the process which imports the consumers may take.
_IMPORT_S = 60.0
_lock = threading.Lock()
_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
_DIGITS = re.compile(r"[+-]?\d{1,18}")
_NUMBER = re.compile(r"[+-]?(\d{1,300}\.?\d{0,300}|\.\d{1,300})([eE][+-]?\d{1,3})?")


@router.get("/kinds", response_model=list[KindReply], responses=problems())
def list_kinds(request: Request) -> list[dict[str, Any]]:
    """List the kinds of jobs. A form can be made from ``options_schema``."""
    return [{name: kind[name] for name in KindReply.model_fields} for kind in kinds_of(context_of(request)).values()]


@router.get("/models", response_model=list[ModelReply], responses=problems())
def list_models(request: Request) -> list[dict[str, Any]]:
    """List the packaged models and those in the bucket, with what their cards say."""
    context = context_of(request)
    found: list[dict[str, Any]] = kept(context, "models", lambda: _models(context))
    return found


def kept(context: WebContext, name: str, read: Callable[[], Any]) -> Any:
    """Return a value that is read again after some time."""
    now = time.monotonic()
    found = context.cache.get(name)
    if isinstance(found, tuple) and now < found[0]:
        return found[1]
    value = read()
    context.cache[name] = (now + _KEPT_S, value)
    return value


def known_queues(context: WebContext) -> list[str]:
    """Return the queues of the settings and those that workers have served."""
    queue = context.settings.queue
    names = {queue, f"{queue}-zip", *context.client.smembers(QUEUES_KEY)}
    return sorted(names)


def kinds_of(context: WebContext) -> dict[str, dict[str, Any]]:
    """Return the kinds by name, each with its queue, and ``class``, the name of its consumer class."""
    with _lock:
        if "forms" not in context.cache:
            context.cache["forms"] = _read_forms(context.settings.consumer_type)
    forms: list[dict[str, Any]] = context.cache["forms"]  # type: ignore[assignment]
    served = served_classes(context)
    queue = context.settings.queue
    usual = {"image": queue, "zip": f"{queue}-zip"}
    return {
        form["name"]: {
            **form,
            "queue": served.get(form["class"]) or usual.get(form["name"], form["name"]),
            "served": form["class"] in served,
        }
        for form in forms
    }


def served_classes(context: WebContext) -> dict[str, str]:
    """Return the queue of each consumer class that a worker runs."""
    found: dict[str, str] = kept(context, "served", lambda: _served(context.client, known_queues(context)))
    return found


def kind_names(context: WebContext) -> Callable[[str], str]:
    """Return a function that names the kind of the jobs in a queue."""
    kinds = kinds_of(context)
    by_queue = {kind["queue"]: name for name, kind in reversed(kinds.items())}

    def name_of(queue: str) -> str:
        return by_queue.get(queue) or by_queue.get(queue.removesuffix("-zip")) or queue

    return name_of


def _served(client: RedisClient, names: list[str]) -> dict[str, str]:
    """Return the queue of each consumer class that a worker runs."""
    facts = read_facts(client, names)
    return {worker.consumer: worker.queue for each in reversed(facts) for worker in each.workers if worker.consumer}


def _read_forms(consumer_type: str) -> list[dict[str, Any]]:
    """Import the consumers in a process of their own: they load large libraries, and authors' code may do anything."""
    command = [sys.executable, "-m", "redis_consumer.web.v1.forms", consumer_type]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_IMPORT_S, check=True)  # noqa: S603
        forms: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        raise Problem(
            503, "The kinds of jobs can't be read.", hint=f"See `redis-consumer consumers` ({error})."
        ) from None
    return forms


def _models(context: WebContext) -> list[dict[str, Any]]:
    store = ModelStore(context.storage)
    found: dict[tuple[str, int], bool] = {(model.name, model.version): True for model in packaged_models()}
    for name in context.storage.list_folders("models"):
        for version in context.storage.list_folders(f"models/{name}"):
            if version.isascii() and version.isdecimal():
                found.setdefault((name, int(version)), False)
    return [_model(store, *model, is_packaged=packaged) for model, packaged in sorted(found.items())]


def _model(store: ModelStore, name: str, version: int, *, is_packaged: bool) -> dict[str, Any]:
    try:
        card = store.card(ModelId(name, version))
    except ConsumerError:
        card = None  # its jobs fail with the reason
    title = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return {
        "name": name,
        "version": version,
        "title": card.description if card and card.description else title,
        "pixel_size_um": card.pixel_size_um if card else None,
        "object_diameter_px": card.object_diameter_px if card else None,
        "roles": list(getattr(card, "roles", ()) or ()),
        "licence": card.license if card else "",
        "packaged": is_packaged,
    }


def option_texts(schema: Mapping[str, Any], options: Mapping[str, Value]) -> dict[str, str]:
    """Check the options of a job, and return them as the texts of its fields. A null becomes an empty text.

    Args:
        schema: ``options_schema`` of the kind.
        options: given by the user.

    Raises:
        Problem: 422 with the field ``options.NAME``: it is unknown, only an operator can set it, or its value is wrong.
    """
    properties: Mapping[str, Any] = schema.get("properties", {})
    texts: dict[str, str] = {}
    for name, value in options.items():
        rule = properties.get(name)
        if rule is None and not _matches(schema, name):
            raise _unknown(name, properties)
        if value is None:
            texts[name] = ""
            continue
        if problem := _problem_of(rule or {}, value, schema.get("$defs", {})):
            raise Problem(422, f"{quoted(str(value))}: {problem}", field=f"options.{name}", hint=_hint(rule or {}))
        texts[name] = _text(value)
    return texts


def _unknown(name: str, properties: Mapping[str, Any]) -> Problem:
    near = difflib.get_close_matches(name, list(properties), n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Options of this kind: {', '.join(properties) or 'none'}."
    return Problem(
        422, "this kind of job has no such option, or only the operator sets it", field=f"options.{name}", hint=hint
    )


def _matches(schema: Mapping[str, Any], name: str) -> bool:
    return name.isprintable() and any(re.search(pattern, name) for pattern in schema.get("patternProperties", {}))


def _hint(rule: Mapping[str, Any]) -> str:
    return str(rule.get("description", ""))


def _text(value: Value) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _problem_of(rule: Mapping[str, Any], value: Any, definitions: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, as JSON Schema sees it; a text counts as the number that it shows."""
    if reference := rule.get("$ref"):
        rule = definitions.get(str(reference).rpartition("/")[2], {})
    choices = rule.get("anyOf") or rule.get("oneOf")
    if choices:
        found = [_problem_of(each, value, definitions) for each in choices if each.get("type") != "null"]
        return "" if "" in found else found[0]
    if "const" in rule or "enum" in rule:
        allowed = rule.get("enum") or [rule["const"]]
        return "" if value in allowed or str(value) in map(str, allowed) else f"must be {_listed(allowed)}"
    return _problem_of_type(rule, value, definitions)


def _listed(values: list[Any]) -> str:
    return " or ".join(map(str, values))


def _problem_of_type(rule: Mapping[str, Any], value: Any, definitions: Mapping[str, Any]) -> str:
    kind = rule.get("type")
    if kind == "array":
        parts = value if isinstance(value, list) else str(value).split(",")
        items = rule.get("items", {})
        return next(filter(None, (_problem_of(items, part, definitions) for part in parts)), "")
    if isinstance(value, list):
        return "must be one value"
    if kind in ("integer", "number"):
        number = _number(value, is_whole=kind == "integer")
        if number is None:
            return "must be a whole number" if kind == "integer" else "must be a number"
        return _problem_of_bounds(rule, number)
    if kind == "boolean":
        return "" if str(value).lower() in ("true", "false", "1", "0", "yes", "no") else "must be true or false"
    return _problem_of_text(rule, str(value))


def _problem_of_text(rule: Mapping[str, Any], text: str) -> str:
    if len(text) > rule.get("maxLength", 1000):
        return "is too long"
    if "\0" in text:
        return "must not have a NUL character"
    pattern = rule.get("pattern")
    return "" if pattern is None or re.search(pattern, text) else f"must match {pattern}"


def _number(value: Any, *, is_whole: bool) -> float | None:
    if isinstance(value, bool):
        return None
    text = str(value).strip()
    if (_DIGITS if is_whole else _NUMBER).fullmatch(text):
        return float(text)
    return float(value) if is_whole and isinstance(value, float) and value.is_integer() else None


def _problem_of_bounds(rule: Mapping[str, Any], number: float) -> str:
    if abs(number) == float("inf"):
        return "must be finite"
    wrong: dict[str, tuple[str, Callable[[float], bool]]] = {
        "must be at least": ("minimum", lambda bound: number < bound),
        "must be above": ("exclusiveMinimum", lambda bound: number <= bound),
        "must be at most": ("maximum", lambda bound: number > bound),
        "must be below": ("exclusiveMaximum", lambda bound: number >= bound),
    }
    return next(
        (
            f"{words} {rule[name]:g}"
            for words, (name, is_wrong) in wrong.items()
            if name in rule and is_wrong(rule[name])
        ),
        "",
    )
