from __future__ import annotations

from typing import NamedTuple

import grpc
import pytest

from redis_consumer.errors import ModelMismatch, ModelNotFound, ModelServerUnavailable, SettingsError
from redis_consumer.serving.transport import faults
from redis_consumer.serving.transport.faults import Fault


class Failure(grpc.RpcError):  # type: ignore[misc]
    def __init__(self, name: str, details: str = "") -> None:
        super().__init__(name)
        self._name, self._details = name, details

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode[self._name]

    def details(self) -> str:
        return self._details


class Case(NamedTuple):
    code: str
    details: str
    error: type[Exception]
    may_pass: bool


CASES = [
    Case("NOT_FOUND", "", ModelNotFound, False),
    Case("UNAVAILABLE", "Servable not found for request: Latest(x)", ModelNotFound, False),
    Case("INVALID_ARGUMENT", "input size does not match", ModelMismatch, False),
    Case("FAILED_PRECONDITION", "", ModelMismatch, False),
    Case("OUT_OF_RANGE", "", ModelMismatch, False),
    Case("RESOURCE_EXHAUSTED", "Received message larger than max (5 vs. 4)", ModelMismatch, False),
    Case("RESOURCE_EXHAUSTED", "OOM when allocating tensor", ModelServerUnavailable, True),
    Case("UNAVAILABLE", "Socket closed", ModelServerUnavailable, True),
    Case("DEADLINE_EXCEEDED", "", ModelServerUnavailable, True),
    Case("INTERNAL", "Received RST_STREAM with error code 2", ModelServerUnavailable, True),
    Case("INTERNAL", "", ModelServerUnavailable, False),
    Case("UNIMPLEMENTED", "", ModelServerUnavailable, False),
    Case("UNAUTHENTICATED", "", ModelServerUnavailable, False),
    Case("PERMISSION_DENIED", "", ModelServerUnavailable, False),
    Case("UNAVAILABLE", "handshake failed: CERTIFICATE_VERIFY_FAILED", SettingsError, False),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code} {case.details}")
def test_a_code_and_its_text_say_whose_fault_it_is(case: Case) -> None:
    found = faults.fault(Failure(case.code, case.details), {})
    assert (found.error, found.may_pass) == (case.error, case.may_pass)
    assert found.advice


def test_what_one_kind_of_server_says_comes_first() -> None:
    own = Fault(ModelServerUnavailable, "wait", may_pass=True)
    assert faults.fault(Failure("NOT_FOUND", "Model is Not Ready"), {"not ready": own}) is own


def test_an_error_of_another_kind_is_unknown() -> None:
    assert faults.code(ValueError("x")) == "UNKNOWN"
    assert faults.fault(ValueError("x"), {}).error is ModelServerUnavailable


def test_details_are_one_line_of_bounded_length() -> None:
    assert faults.detail(Failure("UNKNOWN", "a\n  b")) == "a b"
    assert faults.detail(Failure("UNKNOWN")) == "no detail"
    assert len(faults.detail(Failure("UNKNOWN", "x" * 1000))) == 300
