"""The page on the kiosk's names tells what became of each variable, field and Python name."""

from __future__ import annotations

import importlib.util
import inspect
import re
from typing import Any

import pytest

from contract.kiosk_names import FIELDS, VARIABLES
from contract.kiosk_python import NAMES, SIGNATURES
from redis_consumer import consumers
from redis_consumer.settings import Settings
from support.documents import DOCS
from support.worker import SCRIPT

TEXT = (DOCS / "upgrade-names.rst").read_text(encoding="utf-8")
ROWS = re.findall(r"^   ([A-Z][A-Z0-9_, ]+): (\S.*)$", TEXT, re.MULTILINE)

TABLES = TEXT.partition("Names in Python\n")[2].partition("Values of the chart\n")[0]
ROWS_OF_NAMES = [
    (re.findall(r"``([\w.-]+)``", row), state)
    for row, state in re.findall(r"^   \* - (``.*?``)\n     - (\w+)\n", TABLES, re.MULTILINE | re.DOTALL)
]
STATES = {name: state for names, state in ROWS_OF_NAMES for name in names}


def found(name: str) -> Any:
    """What is called so in the package; instances are asked for what classes haven't."""
    start, _, rest = name.partition(".")
    if start == "consume-redis-events":
        spec = importlib.util.spec_from_file_location("consume_redis_events", SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        thing: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(thing)
    else:
        thing = importlib.import_module(f"redis_consumer.{start}")
    for part in filter(None, rest.split(".")):
        is_of_instances = isinstance(thing, type) and issubclass(thing, consumers.Consumer) and not hasattr(thing, part)
        thing = getattr(thing(None, None, "predict") if is_of_instances else thing, part)
    return thing


def parameters(function: Any) -> list[inspect.Parameter]:
    return [each for each in inspect.signature(function).parameters.values() if each.kind is not each.VAR_KEYWORD]


def test_each_python_name_has_one_row() -> None:
    assert sorted(name for names, _ in ROWS_OF_NAMES for name in names) == sorted(NAMES)
    assert set(STATES.values()) == {"same", "changed", "gone"}


@pytest.mark.parametrize("name", NAMES)
def test_a_python_name_exists_unless_it_is_gone(name: str) -> None:
    if STATES[name] == "gone":
        with pytest.raises((AttributeError, ModuleNotFoundError)):
            found(name)
    else:
        found(name)


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_python_name_takes_the_arguments_of_before(name: str) -> None:
    """By place and by name, with the same defaults; others may follow, with defaults of their own."""
    wanted = parameters(eval(f"lambda {SIGNATURES[name]}: None"))
    ours = parameters(found(name))
    assert [each.name for each in ours[: len(wanted)]] == [each.name for each in wanted]
    assert all(each.kind is each.POSITIONAL_OR_KEYWORD for each in ours[: len(wanted)])
    for each, before in zip(ours, wanted, strict=False):
        assert before.default is before.empty or each.default == before.default
    rest = ours[len(wanted) :]
    assert all(each.default is not each.empty for each in rest)


def test_each_function_of_the_page_has_its_arguments_checked() -> None:
    callables = {name for name in NAMES if STATES[name] != "gone" and inspect.isfunction(found(name))}
    others = {"storage.get_client", "consumers.TensorFlowServingConsumer.predict"}  # have tests of their own
    assert callables - others <= set(SIGNATURES) | {
        "grpc_clients.make_tensor_proto",
        "grpc_clients.grpc_response_to_dict",
    }


def test_the_page_names_the_package_that_scripts_of_2023_need() -> None:
    assert "pip install python-decouple" in TEXT


def test_each_variable_has_one_row() -> None:
    assert sorted(name for names, _ in ROWS for name in names.split(", ")) == sorted(VARIABLES)


@pytest.mark.parametrize("name", VARIABLES)
def test_each_variable_is_still_read(name: str) -> None:
    assert name.lower() in Settings.model_fields


def test_each_field_has_one_row() -> None:
    table = TEXT.partition("Fields of a job\n")[2].partition("Names in Python\n")[0]
    rows = re.findall(r"^   \* - ((?:``[a-z_:]+``(?:, )?)+)$", table, re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"``([a-z_:]+)``", row)) == sorted(FIELDS)


def test_variables_that_are_not_used_say_so_in_both_places() -> None:
    unused = {name for names, change in ROWS if "**Not used**" in change for name in names.split(", ")}
    described = {name for name in VARIABLES if "not used" in str(Settings.model_fields[name.lower()].description)}
    assert unused == described
