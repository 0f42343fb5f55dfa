"""``redis-consumer tokens``: makes, lists and revokes the tokens with which users log in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redis_consumer.app import read_settings
from redis_consumer.cli.output import console, notes, say, write_json

if TYPE_CHECKING:
    from redis_consumer.web.tokens import TokenFile

User = Annotated[str, typer.Argument(help="Name of the user.")]
File = Annotated[
    Path | None, typer.Option("--file", help="File of the tokens. [default: WEB_TOKENS, or tokens.json in WEB_FOLDER]")
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    group.command(epilog=notes("redis-consumer tokens new ada", "redis-consumer tokens new grace --role operator"))(new)
    group.command("list", epilog=notes("redis-consumer tokens list --json"))(list_tokens)
    group.command(epilog=notes("redis-consumer tokens revoke ada"))(revoke)
    app.add_typer(
        group,
        name="tokens",
        help="Make, list and revoke the tokens with which users log in to the web server.",
        epilog=notes("redis-consumer tokens new ada", "redis-consumer tokens revoke ada"),
    )


def new(
    user: User,
    role: Annotated[str, typer.Option("--role", help="user, or operator: sees and changes everything.")] = "user",
    file: File = None,
) -> None:
    """Make a token and print it. It is shown only now: the file has a digest of it."""
    typer.echo(_tokens(file).new(user, role))
    say(f"{user} logs in with this token on the page, or sends `Authorization: Bearer TOKEN`.")


def list_tokens(file: File = None, json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the users who have tokens."""
    from rich.table import Table

    tokens = _tokens(file).all()
    if json:
        write_json([{"user": token.user, "role": token.role, "created": token.created} for token in tokens])
        return
    table = Table("User", "Role", "Made at")
    for token in tokens:
        table.add_row(token.user, token.role, token.created)
    console().print(table)


def revoke(user: User, file: File = None) -> None:
    """Remove all tokens of a user. Open pages of this user are closed within a second."""
    count = _tokens(file).revoke(user)
    if not count:
        say(f"{user} has no token.")
        raise typer.Exit(1)
    say(f"Removed {count} token{'s' if count > 1 else ''} of {user}.")


def _tokens(file: Path | None) -> TokenFile:
    from redis_consumer.web.context import server_folder, token_path
    from redis_consumer.web.tokens import TokenFile

    if file is None:
        settings = read_settings()
        file = token_path(settings, server_folder(settings))
    return TokenFile(file)
