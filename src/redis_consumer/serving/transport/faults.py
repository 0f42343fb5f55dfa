"""Classifies failed calls of a model server: the job's fault or the server's (contract, section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis_consumer.errors import ConsumerError, ModelMismatch, ModelNotFound, ModelServerUnavailable, SettingsError

_MAX_DETAIL_CHARACTERS = 300


@dataclass(frozen=True)
class Fault:
    """What a failure means.

    Attributes:
        error: the class to raise.
        advice: what to do about it.
        may_pass: whether the same call may succeed in a moment, or at once on another server.
    """

    error: type[ConsumerError]
    advice: str
    may_pass: bool = False


_UNKNOWN_MODEL = Fault(ModelNotFound, "check model_name and model_version")
_MISFIT = Fault(ModelMismatch, "check the input's name, dtype, shape and size against the model's metadata")
_TOO_LARGE = Fault(ModelMismatch, "use smaller tiles or batches, or raise the limit of the server")
_REFUSED = Fault(ModelServerUnavailable, "check the headers that the settings give, and who may use the server")
_WRONG_CERTIFICATE = Fault(SettingsError, "check that the authorities of the settings are those of the server")
_CUT_OFF = Fault(ModelServerUnavailable, "look into the server's log", may_pass=True)
_BROKEN = Fault(ModelServerUnavailable, "look into the server's log, and check the address")

_BY_CODE = {
    "NOT_FOUND": _UNKNOWN_MODEL,
    "INVALID_ARGUMENT": _MISFIT,
    "FAILED_PRECONDITION": _MISFIT,
    "OUT_OF_RANGE": _MISFIT,
    "UNAUTHENTICATED": _REFUSED,
    "PERMISSION_DENIED": _REFUSED,
    "UNAVAILABLE": Fault(ModelServerUnavailable, "check that it runs, and the address", may_pass=True),
    "DEADLINE_EXCEEDED": Fault(
        ModelServerUnavailable,
        "check that it isn't overloaded, or raise GRPC_TIMEOUT",
        may_pass=True,
    ),
    "RESOURCE_EXHAUSTED": Fault(ModelServerUnavailable, "check its load and memory", may_pass=True),
}

# Texts say more than the code that came with them, most specific first.
_BY_TEXT = {
    "servable not found": _UNKNOWN_MODEL,
    "unrecognized servable version label": _UNKNOWN_MODEL,
    "larger than max": _TOO_LARGE,
    "certificate_verify_failed": _WRONG_CERTIFICATE,
    # A server or proxy that dies amid a call may leave only this, with the code INTERNAL.
    "rst_stream": _CUT_OFF,
}


def fault(error: BaseException, texts: Mapping[str, Fault]) -> Fault:
    """Say what an error of gRPC means.

    Args:
        error: as gRPC raised it.
        texts: error texts of a kind of server, in lower case, and their meaning.
    """
    said = detail(error).lower()
    for text, found in (*texts.items(), *_BY_TEXT.items()):
        if text in said:
            return found
    return _BY_CODE.get(code(error), _BROKEN)


def code(error: BaseException | None) -> str:
    """Name of the gRPC code of an error, ``UNKNOWN`` for one that has none."""
    found: Any = getattr(error, "code", None)
    return str(found().name) if callable(found) else "UNKNOWN"


def detail(error: BaseException) -> str:
    """What an error of gRPC says, on one line of bounded length."""
    found: Any = getattr(error, "details", None)
    text = " ".join(str(found() if callable(found) else error).split())
    return text[:_MAX_DETAIL_CHARACTERS] or "no detail"
