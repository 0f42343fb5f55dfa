"""Options come from job, variable and default, in this order, and wrong ones give a readable error."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import Field, Json, SecretStr, model_validator

from redis_consumer.consumers.options import (
    ConsumerOptions,
    Option,
    as_texts,
    check_names,
    describe_options,
    options_for,
    per_job,
    read_variables,
)
from redis_consumer.errors import InvalidJob, SettingsError
from redis_consumer.job import Job


class Some(ConsumerOptions):
    min_size: Annotated[int, per_job] = Field(default=10, ge=0, lt=1000, description="Pixels of the smallest nucleus")
    mode: Annotated[Literal["fast", "exact"], per_job] = "fast"
    weights: Annotated[tuple[float, ...], per_job] = (1.0, 2.0)
    is_strict: Annotated[bool, per_job] = False
    program: str = Field(default="cellfinder", description="Program that is run")


class Speed(Enum):
    FAST = "fast"
    EXACT = "exact"


class Choosing(ConsumerOptions):
    speed: Annotated[Speed, per_job] = Speed.FAST
    speeds: Annotated[tuple[Speed, ...], per_job] = (Speed.EXACT, Speed.FAST)
    channels: Annotated[list[int] | None, per_job] = None
    frames: Annotated[Optional[tuple[int, ...]], per_job] = None  # noqa: UP045 - authors write both


class Needed(ConsumerOptions):
    threshold: Annotated[float, per_job]
    low: Annotated[float, per_job] = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> Needed:
        if self.low > self.threshold:
            raise ValueError("low must be below threshold")
        return self


def job(**fields: str) -> Job:
    return Job("predict:a.tif:1", fields)


def test_defaults_hold_where_nothing_is_given() -> None:
    assert options_for(Some, read_variables(Some), job(min_size="", mode=" ")) == Some()


def test_a_variable_wins_over_the_default_and_a_field_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIN_SIZE", "20")
    monkeypatch.setenv("WEIGHTS", "0.5, 3")
    monkeypatch.setenv("MODE", "")
    options = options_for(Some, read_variables(Some), job(min_size="30", is_strict="true"))
    assert options == Some(min_size=30, weights=(0.5, 3.0), is_strict=True)


@pytest.mark.parametrize("text", ["/bin/evil", "cellfinder", "x"])
def test_a_job_cannot_set_what_only_the_operator_may(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for is_set in (False, True):
        if is_set:
            monkeypatch.setenv("PROGRAM", "x")
        with pytest.raises(InvalidJob) as caught:
            options_for(Some, read_variables(Some), job(program=text))
        assert str(caught.value) == (
            "field program: only the operator sets this option, by the variable PROGRAM of the worker; "
            "leave the field out"
        )
    assert options_for(Some, read_variables(Some), job(program=" ")).program == "x"


def test_an_option_that_a_subclass_declares_anew_without_the_mark_is_the_operators() -> None:
    class Stricter(Some):
        min_size: int = 5

    with pytest.raises(InvalidJob, match="field min_size: only the operator"):
        options_for(Stricter, {}, job(min_size="3"))
    assert options_for(Stricter, {}, job(mode="exact")).mode == "exact"


def test_an_operators_option_without_default_is_asked_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    class Licensed(ConsumerOptions):
        license_server: str

    with pytest.raises(SettingsError, match="^LICENSE_SERVER: is missing; set this variable of the worker$"):
        read_variables(Licensed)
    monkeypatch.setenv("LICENSE_SERVER", "a")
    assert options_for(Licensed, read_variables(Licensed), job()).license_server == "a"


def test_a_mark_inside_a_type_is_refused() -> None:
    class Inside(ConsumerOptions):
        frames: Annotated[int, per_job] | None = None

    with pytest.raises(
        SettingsError, match=r"option 'frames' has per_job inside its type; .*Annotated\[TYPE, per_job\]"
    ):
        check_names(Inside, "Counter")


@pytest.mark.parametrize(("name", "text"), [(".env", "MIN_SIZE=7\n"), ("settings.ini", "[settings]\nMIN_SIZE = 7\n")])
def test_variables_may_come_from_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_variables(Some) == {"min_size": "7"}


def test_wrong_variables_are_named_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIN_SIZE", "-1")
    (tmp_path / ".env").write_text("MODE=slow\n")
    with pytest.raises(SettingsError) as caught:
        read_variables(Some)
    assert str(caught.value).splitlines() == [
        "MIN_SIZE = '-1' (environment): must be greater than or equal to 0",
        "MODE = 'slow' (.env file): must be 'fast' or 'exact'",
    ]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"min_size": "many"}, "field min_size: 'many': must be a valid integer"),
        ({"min_size": "1000"}, "field min_size: '1000': must be less than 1000"),
        ({"mode": "x" * 99}, f"field mode: '{'x' * 50}…': must be 'fast' or 'exact'"),
        ({"weights": "1,b"}, "field weights: '1,b': must be a valid number"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        options_for(Some, {}, job(**fields))
    assert str(caught.value).startswith(text)


def test_what_must_be_given_is_asked_of_the_job_not_of_the_worker() -> None:
    variables = read_variables(Needed)
    assert options_for(Needed, variables, job(threshold="0.5")).threshold == 0.5
    with pytest.raises(InvalidJob, match="field threshold: missing; give it, or set the variable THRESHOLD"):
        options_for(Needed, variables, job())


def test_a_value_with_too_few_parts_is_no_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pair(ConsumerOptions):
        window: Annotated[tuple[int, int], per_job] = (1, 2)

    with pytest.raises(InvalidJob, match="field window: '3': has too few values"):
        options_for(Pair, {}, job(window="3"))
    monkeypatch.setenv("WINDOW", "3")
    with pytest.raises(SettingsError, match=r"WINDOW = '3' \(environment\): has too few values"):
        read_variables(Pair)


def test_what_is_read_from_a_text_is_an_option() -> None:
    class Deep(ConsumerOptions):
        sizes: Annotated[Json[dict[str, int]], per_job] = Field(default={})

    check_names(Deep, "Counter")
    assert options_for(Deep, {}, job(sizes='{"min": 3}')).sizes == {"min": 3}


@pytest.mark.parametrize("kind", [dict[str, int], dict[str, int] | None, Annotated[dict[str, int], per_job]])
def test_an_option_that_no_text_gives_is_refused(kind: Any) -> None:
    options = type("Options", (ConsumerOptions,), {"__annotations__": {"deep": kind}})
    with pytest.raises(SettingsError, match="Counter: its option 'deep' is a .*, which no text gives"):
        check_names(options, "Counter")


def test_options_that_are_at_odds_are_told_in_the_authors_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidJob, match="^low must be below threshold$"):
        options_for(Needed, {}, job(threshold="0.5", low="1"))
    monkeypatch.setenv("THRESHOLD", "0.5")
    monkeypatch.setenv("LOW", "1")
    with pytest.raises(SettingsError, match="low must be below threshold"):
        read_variables(Needed)


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Secretive(ConsumerOptions):
        token: Annotated[SecretStr, per_job] = Field(default=SecretStr(""), min_length=20)

    monkeypatch.setenv("TOKEN", "hunter2")
    with pytest.raises(SettingsError, match=r"TOKEN = \*{8} \(environment\)") as caught:
        read_variables(Secretive)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(InvalidJob, match=r"field token: \*{8}: "):
        options_for(Secretive, {}, job(token="hunter2"))


def test_options_are_described() -> None:
    assert describe_options(Some)[:3] == [
        Option("min_size", "int, at least 0, below 1000", "10", "MIN_SIZE", "Pixels of the smallest nucleus", True),
        Option("mode", "fast or exact", "fast", "MODE", "", True),
        Option("weights", "tuple[float, ...]", "1.0,2.0", "WEIGHTS", "", True),
    ]
    assert describe_options(Some)[-1] == Option("program", "str", "cellfinder", "PROGRAM", "Program that is run")
    assert describe_options(Needed)[0].default is None


def test_another_name_of_an_option_is_refused() -> None:
    class Renamed(ConsumerOptions):
        min_area: int = Field(default=3, alias="minArea")

    with pytest.raises(SettingsError, match="Counter: its option 'min_area' has an alias"):
        check_names(Renamed, "Counter")


def test_choices_of_an_enum_are_its_values() -> None:
    assert describe_options(Choosing)[0] == Option("speed", "fast or exact", "fast", "SPEED", "", True)
    texts = as_texts(Choosing(speed=Speed.EXACT))
    assert texts == {"speed": "exact", "speeds": "exact,fast"}
    assert options_for(Choosing, {}, job(**texts)).speed is Speed.EXACT


def test_several_values_or_none_are_taken() -> None:
    options = options_for(Choosing, {}, job(channels="0,2", frames="3"))
    assert (options.channels, options.frames) == ([0, 2], (3,))
    assert [option.kind for option in describe_options(Choosing)[2:]] == ["list[int]", "tuple[int, ...]"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("queue", "name of a setting"), ("status", "a field that workers write"), ("minSize", "isn't in lower case")],
)
def test_names_that_mean_something_else_are_refused(name: str, why: str) -> None:
    options = type("Options", (ConsumerOptions,), {"__annotations__": {name: int}, name: 1})
    with pytest.raises(SettingsError, match=f"Counter: its option '{name}' .*{why}.*call it otherwise"):
        check_names(options, "Counter")
