"""``redis-consumer health``: checks the worker of this machine."""

from __future__ import annotations

import http.client
from typing import Annotated

import typer

from redis_consumer.app import read_settings
from redis_consumer.cli.output import fail, notes
from redis_consumer.errors import EXIT_FAILED, EXIT_USAGE

TIMEOUT_S = 5.0
#: The address to ask if the worker listens on all addresses.
LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens there


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=notes("redis-consumer health", "redis-consumer health --ready"))(health)


def health(
    ready: Annotated[bool, typer.Option("--ready", help="Check that it takes jobs, not only that it runs.")] = False,
) -> None:
    """Check the worker at HEALTH_ADDRESS. For container health checks.

    Prints its state as JSON. The exit code is 1 if it does not respond or is not
    ready.
    """
    address = read_settings().health_address
    if not address:
        fail(
            "HEALTH_ADDRESS is empty; set the same value for the worker and this command, e.g. 127.0.0.1:8080",
            EXIT_USAGE,
        )
    status, text = _ask(address, "/ready" if ready else "/live")
    typer.echo(text)
    if status != http.client.OK:
        raise typer.Exit(EXIT_FAILED)


def _ask(address: str, path: str) -> tuple[int, str]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    connection = http.client.HTTPConnection(LOOPBACK.get(host, host), int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode().strip()
    except (OSError, http.client.HTTPException) as error:
        fail(f"HEALTH_ADDRESS={address}: no worker responds there ({error or type(error).__name__})", EXIT_FAILED)
        raise AssertionError from error
    finally:
        connection.close()
