"""``redis-consumer serve``: runs the web server."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Annotated

import typer

from redis_consumer.app import read_settings, start_logs
from redis_consumer.cli import options
from redis_consumer.cli.output import notes, say
from redis_consumer.errors import SettingsError
from redis_consumer.settings import Settings

Port = Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 for any free one.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=notes(
            "redis-consumer serve",
            "redis-consumer serve --port 8080 --redis localhost:6379 --bucket file:///data/bucket",
            "WEB_AUTH=token redis-consumer serve --host 0.0.0.0",
        )
    )(serve)


def serve(
    port: Port = 8080,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    redis: options.Redis = None,
    bucket: options.Bucket = None,
    open_to_all: Annotated[
        bool,
        typer.Option("--open-to-all", help="Allow WEB_AUTH=none on an address that other machines can reach."),
    ] = False,
) -> None:
    """Run the web server: the page, API v1 and the kiosk's API.

    Without login, only this machine can reach it. It needs the extra `web`, and runs
    until Ctrl-C or SIGTERM.
    """
    settings = read_settings(redis=redis, bucket=bucket)
    start_logs(settings)
    is_loopback = is_of_this_machine(host)
    check_login(settings, host, is_open=open_to_all)
    with listen(host, port) as listener:
        run_server(settings, listener, is_loopback=is_loopback)


def is_of_this_machine(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_login(settings: Settings, host: str, *, is_open: bool) -> None:
    """Refuse to let everybody in by mistake.

    Raises:
        SettingsError: others can reach the address, and there is no login.
    """
    if settings.web_auth == "none" and not is_of_this_machine(host) and not is_open:
        raise SettingsError(
            f"--host {host}: other machines can reach it, and WEB_AUTH=none lets everybody in as operator; set "
            "WEB_AUTH=token or proxy, or add --open-to-all if that is meant"
        )


def listen(host: str, port: int) -> socket.socket:
    """Open the port.

    Raises:
        SettingsError: it is in use, or the address is not one of this machine.
    """
    host = host.strip("[]")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise SettingsError(
            f"--port {port}: can't listen on {host}:{port} ({reason}); another program may use it, choose another port"
        ) from error


def run_server(settings: Settings, listener: socket.socket, *, is_loopback: bool) -> None:
    """Serve requests on an open port until Ctrl-C or SIGTERM.

    Raises:
        SettingsError: the extra is not installed, or a setting is wrong.
    """
    try:
        import uvicorn

        from redis_consumer.web.app import build_app
        from redis_consumer.web.context import WebContext
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == "redis_consumer":
            raise
        raise SettingsError(
            f"the web server needs {error.name}; install the extra: pip install 'kiosk-redis-consumer[web]'"
        ) from error
    context = WebContext.of(settings, is_loopback=is_loopback)
    host, port = listener.getsockname()[:2]
    say(f"Serving http://{f'[{host}]' if ':' in host else host}:{port}")
    config = uvicorn.Config(
        build_app(context),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application reads them, from TRUSTED_PROXIES only
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[listener])
