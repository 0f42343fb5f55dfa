"""Reads the values of settings from all sources.

From the highest priority to the lowest, these are the caller's own values (the command line), the environment,
``.env``, ``settings.ini``, a TOML file (``redis-consumer.toml`` or the one that ``REDIS_CONSUMER_CONFIG`` names), and
the default. The files are in the working directory. An empty value counts as not set, because the kiosk's charts set
variables to the empty string.
"""

from __future__ import annotations

import configparser
import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError, create_model
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, TomlConfigSettingsSource

from redis_consumer.errors import SettingsError
from redis_consumer.settings.kinds import CONFLICT
from redis_consumer.settings.redis_url import redis_values
from redis_consumer.settings.settings import MASK, Settings, allowed_values
from redis_consumer.text import cut

CONFIG_VARIABLE = "REDIS_CONSUMER_CONFIG"
OLDER_NAMES = {"STORAGE_BUCKET": ("CLOUD_PROVIDER", "AWS_S3_BUCKET", "GKE_BUCKET"), "LOG_LEVEL": ("DEBUG",)}

#: Similarity, from 0 to 1, above which a name counts as a misspelling of another; names of the kiosk's other programs.
_NEAR = 0.88
_OF_OTHERS = frozenset({"QUEUES", "MIN_PODS", "MAX_PODS"})

Layer = tuple[str, Mapping[str, Any]]


def load_settings(**overrides: object) -> Settings:
    """Read all sources and check every value.

    Args:
        overrides: values that override all sources, by field or variable name; None counts as not given.

    Raises:
        SettingsError: names every wrong value: what was seen, where it came from, what is allowed.
        TypeError: an override isn't the name of a setting.
    """
    given = {name.upper(): value for name, value in overrides.items() if value is not None}
    unknown = sorted(given.keys() - _names())
    if unknown:
        raise TypeError(f"no settings of the name {', '.join(unknown)}")
    names = _names()
    layers = [("environment", _environment(Settings, names)), (".env file", _dot_env(Settings, names))]
    return build([("command line", given), *layers, _ini_file(names), _toml_file()])


def build(layers: list[Layer]) -> Settings:
    """Let each variable have the value of the first layer that gives one, and check them all."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, layer in layers:
        for name, value in layer.items():
            if value != "" and name not in values:
                values[name], sources[name] = value, source
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error, values, sources)) from error
    for name, older in OLDER_NAMES.items():
        if name not in values and any(other in values for other in older):
            sources[name] = ", ".join(other for other in older if other in values)
    sources.update(dict.fromkeys(redis_values(values.get("REDIS_URL")), "REDIS_URL"))
    settings._sources.update(sources)
    return settings


@dataclass(frozen=True)
class Variable:
    """A variable that is no setting: its text and where it came from."""

    text: str
    source: str


def read_variables(names: Iterable[str]) -> dict[str, Variable]:
    """Return variables that aren't settings, such as options of consumers: those that the environment, ``.env`` or
    ``settings.ini`` give, the first of these that does.
    """
    wanted = set(names)
    fields: dict[str, Any] = dict.fromkeys(wanted, (str | None, None))
    model = create_model("Variables", __base__=BaseSettings, **fields)
    layers = [("environment", _environment(model, wanted)), (".env file", _dot_env(model, wanted)), _ini_file(wanted)]
    found: dict[str, Variable] = {}
    for source, layer in layers:
        for name, text in layer.items():
            if text:
                found.setdefault(name, Variable(str(text), source))
    return found


def misspelt_variables(options: Iterable[str] = ()) -> list[str]:
    """Find variables of the environment, ``.env`` and ``settings.ini`` that look like a misspelling of a known one.

    Args:
        options: variables of a consumer's options, which are known too.

    Returns:
        For each a sentence with its name, its source, and the name that may be meant.
    """
    known = {*_names(), *options, *(older for names in OLDER_NAMES.values() for older in names), CONFIG_VARIABLE}
    in_dot_env, parser = frozenset[str](), configparser.ConfigParser()
    with suppress(OSError, ValueError, configparser.Error):  # `load_settings` says what is wrong with the file
        in_dot_env = frozenset(DotEnvSettingsSource(Settings, env_file=".env", case_sensitive=True).env_vars)
        parser.read("settings.ini", encoding="utf-8")
    in_ini = [name.upper() for name in parser["settings"]] if parser.has_section("settings") else []
    places = {"environment": os.environ, ".env file": in_dot_env, "settings.ini": in_ini}
    return [
        f"{name} ({source}) is no setting; did you mean {near[0]}?"
        for source, names in places.items()
        for name in sorted(names)
        if name.isupper() and name not in known | _OF_OTHERS
        if (near := difflib.get_close_matches(name, known, n=1, cutoff=_NEAR))
    ]


def _names() -> set[str]:
    return {field.upper() for field in Settings.model_fields}


def _environment(model: type[BaseSettings], names: set[str]) -> Mapping[str, Any]:
    values = EnvSettingsSource(model, case_sensitive=True, env_ignore_empty=True)()
    # pydantic also finds the fields' own names, but a shell's `queue` isn't our QUEUE.
    return {name: text for name, text in values.items() if name in names}


def _dot_env(model: type[BaseSettings], names: set[str]) -> Mapping[str, Any]:
    def read() -> Mapping[str, Any]:
        source = DotEnvSettingsSource(
            model, env_file=".env", env_file_encoding="utf-8", case_sensitive=True, env_ignore_empty=True
        )
        # Other names in the file are for other programs.
        return {name: text for name, text in source().items() if name in names}

    return _read(Path(".env"), read)


def _ini_file(names: set[str]) -> Layer:
    def read() -> Mapping[str, Any]:
        parser = configparser.ConfigParser()
        parser.read("settings.ini", encoding="utf-8")
        section = parser["settings"] if parser.has_section("settings") else {}
        return {name.upper(): text for name, text in section.items() if name.upper() in names}

    return "settings.ini", _read(Path("settings.ini"), read)


def _toml_file() -> Layer:
    named = os.environ.get(CONFIG_VARIABLE, "")
    path = Path(named or "redis-consumer.toml")
    if named and not path.is_file():
        raise SettingsError(f"{CONFIG_VARIABLE} = {named!r} (environment): there is no such file; give an existing one")
    values = _read(path, lambda: TomlConfigSettingsSource(Settings, toml_file=path).toml_data)
    layer = {name.upper(): value for name, value in values.items()}
    # Only this package reads the file, so an unknown name is a mistake.
    unknown = sorted(layer.keys() - _names())
    if unknown:
        near = difflib.get_close_matches(unknown[0], _names(), n=1)
        hint = f"did you mean {near[0]}?" if near else "`redis-consumer settings` lists them all"
        raise SettingsError(f"{path.name}: there is no setting {unknown[0]}; {hint}")
    return f"TOML file {path.name}", layer


def _read(path: Path, read: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    try:
        return read() if path.is_file() else {}
    except (OSError, ValueError, configparser.Error) as error:
        raise SettingsError(f"{path.name}: can't be read: {error}; fix or remove the file") from error


def _explain(error: ValidationError, values: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    problems = error.errors(include_url=False, include_context=False)
    lines = [
        _explain_one(problem, values, sources)
        for problem in problems
        # Defaults that follow another value can't be worked out when that one is wrong: one line is enough.
        if problem["type"] != "default_factory_not_called"
    ]
    head = "1 setting is wrong" if len(lines) == 1 else f"{len(lines)} settings are wrong"
    return "\n".join([f"{head}:", *(f"  {line}" for line in lines)])


def _explain_one(problem: ErrorDetails, values: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    name, message = str(problem["loc"][0]).upper(), problem["msg"]
    is_secret = "SecretStr" in str(Settings.model_fields[name.lower()].annotation)
    seen = MASK if is_secret or isinstance(values.get(name), SecretStr) else _shown(values.get(name, ""))
    allowed = None if problem["type"] == CONFLICT else allowed_values(name)
    wanted = f"must be {allowed}" if allowed else message.replace("Input should be", "must be")
    older = ", ".join(OLDER_NAMES.get(name, ()))
    return f"{name} = {seen} ({sources.get(name) or (f'from {older}' if older else 'default')}): {wanted}"


def _shown(value: object) -> str:
    """The value as it was written, without name and password where it is a URL that holds them."""
    return re.sub(r"^(['\"](?:\w+://)?).*@", rf"\1{MASK}@", cut(repr(value)))
