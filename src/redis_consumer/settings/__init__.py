"""Holds the settings of the process.

`load_settings` reads all sources into one frozen `Settings`. The older upper-case names of this module
(``settings.QUEUE``, ``settings.MODEL_CHOICES``) are read from settings that are loaded once, at the first use;
a value that is assigned (``settings.QUEUE = "track"``) overrides them afterwards, in `get` and in `current`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from redis_consumer.settings.settings import MASK, Setting, Settings
from redis_consumer.settings.sources import Variable, build, load_settings, misspelt_variables, read_variables

__all__ = [
    "APPLICATION_CHOICES",
    "MASK",
    "PROCESSING_FUNCTIONS",
    "Setting",
    "Settings",
    "Variable",
    "current",
    "get",
    "given",
    "glanced_at",
    "is_setting",
    "load_settings",
    "misspelt_variables",
    "read_anew",
    "read_variables",
    "revealed",
    "use",
]

if TYPE_CHECKING:
    #: Functions by kind (``pre``, ``post``) and name: the built-in ones, and those that a script puts in.
    PROCESSING_FUNCTIONS: dict[str, dict[str, Callable[..., Any]]]
    #: Applications by kind of image, see `redis_consumer.processing.applications`.
    APPLICATION_CHOICES: dict[int, Callable[..., Any]]
    #: Model and post-processing by kind of image (the job's field ``label``).
    MODEL_CHOICES: dict[int, str]
    POSTPROCESS_CHOICES: dict[int, str]
    #: Folder for results of the older software, beside the package.
    OUTPUT_DIR: str

_in_use: list[Settings] = []
# The last settings with assigned values: what they were made of, and they themselves.
_assigned: list[tuple[Settings, dict[str, object], Settings]] = []


def use(settings: Settings | None) -> None:
    """Set the settings that `current`, `get` and the upper-case names give; None: load them again at the next use."""
    _in_use[:] = [] if settings is None else [settings]


def current() -> Settings:
    """Return the settings in use, with what was assigned to this module's upper-case names.

    Raises:
        SettingsError: a value is wrong.
    """
    if not _in_use:
        use(load_settings())
    assigned = {name: value for name, value in globals().items() if name.isupper() and is_setting(name)}
    if not assigned:
        return _in_use[0]
    if not _assigned or _assigned[0][0] is not _in_use[0] or _assigned[0][1] != assigned:
        _assigned[:] = [(_in_use[0], assigned, _with_assigned(_in_use[0], assigned))]
    return _assigned[0][2]


@contextmanager
def read_anew() -> Iterator[None]:
    """Load the settings again at their first use within the block, and restore the former ones afterwards."""
    before = _in_use[:]
    use(None)
    try:
        yield
    finally:
        _in_use[:] = before


@contextmanager
def glanced_at() -> Iterator[None]:
    """Within the block, let settings that no one has asked for yet be read without being kept.

    What is made before a script has set all its variables must not decide the others.
    """
    is_in_use = bool(_in_use)
    try:
        yield
    finally:
        if not is_in_use:
            use(None)


def is_setting(name: str) -> bool:
    """Return whether a setting has this name, in upper or lower case."""
    return name.lower() in Settings.model_fields


def given(names: Iterable[str]) -> list[str]:
    """Return those of the upper-case names whose settings are set, and not left at their defaults."""
    now = current()
    return [name for name in names if name in now._sources or name.lower() in now.model_fields_set]


def get(name: str) -> Any:
    """Return the value of an upper-case name: the assigned value, or else the value of the setting.

    Secrets come as plain text, models as ``name:version``.

    Raises:
        AttributeError: there is no such name.
        SettingsError: a value is wrong.
    """
    return globals()[name] if name in globals() else __getattr__(name)


def __getattr__(name: str) -> Any:
    if name.isupper() and is_setting(name):
        value = getattr(current(), name.lower())
        return revealed(value) if isinstance(value, SecretStr) else value
    if name in _DERIVED:
        return _DERIVED[name]()
    if name in _TABLES:
        # Kept, so that what a script puts in stays there.
        return globals().setdefault(name, _TABLES[name]())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def revealed(secret: SecretStr | None) -> str | None:
    """Return a secret as plain text; None for none."""
    return None if secret is None else secret.get_secret_value()


def _strip(path: str) -> str:
    """Join repeated slashes of a bucket path into one and drop those at its ends."""
    return re.sub(r"/+", "/", path).strip("/")


def _with_assigned(settings: Settings, assigned: dict[str, object]) -> Settings:
    given = {name.upper(): getattr(settings, name) for name in settings.model_fields_set}
    layers = [(settings.source(name), {name: value}) for name, value in given.items()]
    return build([("assignment", assigned), *layers])


def _folder(name: str) -> str:
    # The folders of the older software: beside the package.
    return str(Path(__file__).resolve().parents[2] / name)


def _retried_statuses() -> frozenset[Any]:
    code = import_module("grpc").StatusCode
    return frozenset({code.DEADLINE_EXCEEDED, code.RESOURCE_EXHAUSTED, code.UNAVAILABLE})


def _functions() -> dict[str, dict[str, Callable[..., Any]]]:
    registry = import_module("redis_consumer.processing.registry")
    return {kind: {name: registry.get_function(kind, name) for name in registry.BUILT_IN[kind]} for kind in _KINDS}


def _applications() -> dict[int, Callable[..., Any]]:
    found = import_module("redis_consumer.processing.applications")
    return {0: found.NuclearSegmentation, 1: found.CytoplasmSegmentation, 2: found.CytoplasmSegmentation}


_KINDS = ("pre", "post")
# Older settings hold functions and classes too. They are found by name when asked for: this module stands below them.
_TABLES: dict[str, Callable[[], Any]] = {
    "APPLICATION_CHOICES": _applications,
    "PROCESSING_FUNCTIONS": _functions,
}


class _Choices(dict[int, str]):
    """A table by label that follows the settings. Entries that a script adds are kept."""

    def __init__(self, name: str, settings: Sequence[str]) -> None:
        super().__init__(enumerate(map(get, settings)))
        self._name = name

    def __setitem__(self, label: int, value: str) -> None:
        super().__setitem__(label, value)
        globals()[self._name] = self

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Put in several."""
        super().update(*args, **kwargs)
        globals()[self._name] = self


_OF_LABELS = {
    "MODEL_CHOICES": ("NUCLEAR_MODEL", "CYTOPLASM_MODEL", "PHASE_MODEL", "TISSUE_MODEL"),
    "POSTPROCESS_CHOICES": ("NUCLEAR_POSTPROCESS", "CYTOPLASM_POSTPROCESS", "PHASE_POSTPROCESS", "TISSUE_POSTPROCESS"),
}
_DERIVED: dict[str, Callable[[], object]] = {
    **{name: partial(_Choices, name, settings) for name, settings in _OF_LABELS.items()},
    "STORAGE_BUCKET_URL": lambda: current().storage_bucket_url,
    "MODEL_SERVER_URL": lambda: current().model_server_url,
    "GRPC_RETRY_STATUSES": _retried_statuses,
    "OUTPUT_DIR": lambda: _folder("output"),
    "DOWNLOAD_DIR": lambda: _folder("download"),
    "LOG_DIR": lambda: _folder("logs"),
}
