"""``redis-consumer doctor``: checks everything that a worker needs, and says what to fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from redis_consumer import settings as settings_module
from redis_consumer.app import open_bucket, open_model_server, open_redis, read_settings
from redis_consumer.cli import options
from redis_consumer.cli.output import console, notes, write_json
from redis_consumer.cli.workers import rights
from redis_consumer.consumers import defaults
from redis_consumer.consumers.options import read_variables
from redis_consumer.consumers.registry import get_consumer_class
from redis_consumer.consumers.serving import TensorFlowServingConsumer
from redis_consumer.errors import EXIT_FAILED, EXIT_UNAVAILABLE, ConsumerError, ObjectNotFound, RetryableError
from redis_consumer.job import ModelId
from redis_consumer.models import ModelStore
from redis_consumer.redis import PROBE_KEY
from redis_consumer.settings import Settings

OK, WARNING, FAILED, UNAVAILABLE = "ok", "warning", "failed", "unavailable"

#: The first version with BLMOVE.
OLDEST_REDIS = (6, 2)

Check = Callable[[], tuple[str, str]]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes(
            "redis-consumer doctor", "redis-consumer doctor --write --json", "redis-consumer doctor --redis r:26379"
        )
    )(doctor)


def doctor(
    redis: options.Redis = None,
    bucket: options.Bucket = None,
    model_server: options.ModelServer = None,
    write: Annotated[bool, typer.Option("--write", help="Also write a small object to the bucket.")] = False,
    json: options.Json = False,
) -> None:
    """Check settings, Redis, bucket, model server and models, and show what to fix."""
    settings = read_settings(redis=redis, bucket=bucket, model_server=model_server)
    findings: list[Finding] = []
    screen = console()
    for finding in run_checks(settings, is_writing=write):
        findings.append(finding)
        if not json:
            _write_finding(screen, finding)
    if json:
        write_json([asdict(finding) for finding in findings])
    outcomes = {finding.outcome for finding in findings}
    if UNAVAILABLE in outcomes:
        raise typer.Exit(EXIT_UNAVAILABLE)
    if FAILED in outcomes:
        raise typer.Exit(EXIT_FAILED)


def _write_finding(screen: Console, finding: Finding) -> None:
    mark, style = {"ok": ("✓", "green"), "warning": ("!", "yellow")}.get(finding.outcome, ("✗", "red"))
    # Never cut or folded: people search for and paste these lines.
    line = Text.assemble((mark, style), " ", (f"{finding.name}: ", "bold"), finding.text)
    screen.print(line, soft_wrap=True)


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: what was looked at.
        outcome: `OK`; `WARNING`: works, but needs attention; `FAILED`: wrong; `UNAVAILABLE`: does not respond.
        text: what was found and, if something is wrong, what to do.
    """

    name: str
    outcome: str
    text: str


def run_checks(settings: Settings, *, is_writing: bool = False) -> Iterator[Finding]:
    """Run all checks and yield each finding as soon as it is known.

    Args:
        settings: as loaded and in use.
        is_writing: also write a small object to the bucket.
    """
    given = sum(setting.source != "default" for setting in settings.describe())
    yield Finding("settings", OK, f"{given} set, all others have their defaults")
    for problem in settings_module.misspelt_variables(_option_variables(settings)):
        yield Finding("settings", WARNING, f"{problem} Rename it, or remove it.")
    yield _look("consumer", lambda: (OK, _consumer(settings)))
    client = open_redis()
    redis = _look("redis", lambda: _redis(client))
    yield redis
    if twice := _given_twice(settings):
        yield Finding("redis address", WARNING, twice)
    if redis.outcome in (OK, WARNING):
        yield _look("redis rights", lambda: _rights(client, settings))
        yield _look("redis writes", lambda: (OK, _takes_writes(client)))
        yield _look("redis persistence", lambda: _persistence(client))
    bucket = open_bucket()
    yield _look("bucket", lambda: (OK, bucket.check()))
    if is_writing:
        yield _look("bucket, writing", lambda: (OK, _write(bucket)))
    yield Finding("result links", OK, _links(settings))
    server = open_model_server(bucket)
    answer = _look("model server", lambda: (OK, server.check()))
    yield answer
    if answer.outcome != UNAVAILABLE and _asks_models(settings):
        for setting, model in named_models(settings):
            yield _look(f"{setting} {model}", partial(_model, server, bucket, model))
    server.close()


def named_models(settings: Settings) -> list[tuple[str, str]]:
    """List the models that jobs of these settings may use: the variable and ``name:version``, each model once."""
    names = ["nuclear_model"]
    if settings.label_detect_enabled:
        names += ["cytoplasm_model", "phase_model", "tissue_model", "label_detect_model"]
    if settings.scale_detect_enabled:
        names.append("scale_detect_model")
    models = {getattr(settings, name): name.upper() for name in reversed(names)}
    return [(setting, model) for model, setting in reversed(models.items())]


def _look(name: str, check: Check) -> Finding:
    try:
        outcome, text = check()
    except RetryableError as error:
        return Finding(name, UNAVAILABLE, str(error))
    except ConsumerError as error:
        return Finding(name, FAILED, str(error))
    return Finding(name, outcome, text)


def _consumer(settings: Settings) -> str:
    found = get_consumer_class(settings.consumer_type)
    read_variables(found.Options)
    return f"{settings.consumer_type}: {found.__module__}.{found.__qualname__} for queue {settings.queue}"


def _option_variables(settings: Settings) -> list[str]:
    with suppress(ConsumerError):  # a missing class is reported elsewhere
        return [name.upper() for name in get_consumer_class(settings.consumer_type).Options.model_fields]
    return []


def _redis(client: Any) -> tuple[str, str]:
    version = str(client.info("server")["redis_version"])
    found = f"{client.describe()}, version {version}"
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if parts < OLDEST_REDIS:
        return FAILED, f"{found}: too old; install Redis {'.'.join(map(str, OLDEST_REDIS))} or later"
    return OK, found


def _given_twice(settings: Settings) -> str:
    others = sorted(settings_module.read_variables(["REDIS_HOST", "REDIS_PORT"]))
    if not others or settings.source("REDIS_URL") in ("default", "command line"):
        return ""
    return f"REDIS_URL and {' and '.join(others)} are set: REDIS_URL overrides the others; remove them"


def _rights(client: Any, settings: Settings) -> tuple[str, str]:
    user = settings.redis_username or "default"
    served = defaults.queue()
    queues = [served, served.removesuffix("-zip")] if served.endswith("-zip") else [served]
    if lacking := rights.missing(client, queues):
        rule = rights.rule(queues)
        return FAILED, f"NOPERM: user {user} may not use {', '.join(lacking)}; run ACL SETUSER {user} {rule}"
    return OK, f"user {user} may run all that a worker of {', '.join(queues)} needs"


def _asks_models(settings: Settings) -> bool:
    """Return whether jobs may use the models that settings name. A missing class is reported elsewhere."""
    try:
        return issubclass(get_consumer_class(settings.consumer_type), TensorFlowServingConsumer)
    except ConsumerError:
        return True


def _takes_writes(client: Any) -> str:
    client.zadd(PROBE_KEY, {"": 0}, xx=True)
    return "they are accepted"


def _persistence(client: Any) -> tuple[str, str]:
    if client.info("persistence").get("aof_enabled"):
        return OK, "jobs survive a restart of Redis (append-only file is on)"
    return WARNING, "jobs are lost when Redis restarts; set `appendonly yes` in its configuration"


def _write(bucket: Any) -> str:
    # Under uploads/, where the kiosk's bucket monitor removes what is old.
    key, text = "uploads/redis-consumer-doctor.txt", b"written by redis-consumer doctor --write\n"
    bucket.write_bytes(key, text)
    if bucket.read_bytes(key) != text:
        raise ObjectNotFound(f"{key}: what was read isn't what was written; check who else writes there", key=key)
    return f"wrote and read {key}"


def _links(settings: Settings) -> str:
    if settings.result_urls == "signed":
        return f"signed: they open for anybody who has them, for {settings.signed_url_expire_s} s"
    return (
        "public: they work only if the bucket allows public reads; from a private bucket the kiosk's client saves an "
        "empty file. Set RESULT_URLS=signed for links that expire"
    )


def _model(server: Any, bucket: Any, model: str) -> tuple[str, str]:
    asked = ModelId.parse(model)
    if hasattr(server, "release"):
        asked = ModelStore(bucket).or_packaged(asked)
    spec = server.metadata(asked)
    inputs, outputs = (", ".join(tensor.name for tensor in tensors) for tensors in (spec.inputs, spec.outputs))
    packaged = "" if str(asked) == model else f"not in the bucket, the packaged {asked} is used; "
    return OK, f"{packaged}takes {inputs}; gives {outputs}"
