"""``redis-consumer doctor``: checks a setup and says what to fix."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from redis_consumer.app import read_settings
from redis_consumer.cli import options
from redis_consumer.cli.output import console, notes, write_json
from redis_consumer.cli.workers import checks
from redis_consumer.cli.workers.checks import Finding
from redis_consumer.errors import EXIT_FAILED, EXIT_UNAVAILABLE


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
    for finding in checks.run_checks(settings, is_writing=write):
        findings.append(finding)
        if not json:
            _write_finding(screen, finding)
    if json:
        write_json([asdict(finding) for finding in findings])
    outcomes = {finding.outcome for finding in findings}
    if checks.UNAVAILABLE in outcomes:
        raise typer.Exit(EXIT_UNAVAILABLE)
    if checks.FAILED in outcomes:
        raise typer.Exit(EXIT_FAILED)


def _write_finding(screen: Console, finding: Finding) -> None:
    mark, style = {"ok": ("✓", "green"), "warning": ("!", "yellow")}.get(finding.outcome, ("✗", "red"))
    # Never cut or folded: people search for and paste these lines.
    line = Text.assemble((mark, style), " ", (f"{finding.name}: ", "bold"), finding.text)
    screen.print(line, soft_wrap=True)
