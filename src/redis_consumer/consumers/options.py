"""Gives the options of a consumer their values, from the job, the environment or the default.

An option is a field of the consumer's class ``Options``. The variable of the same name in upper case sets it
(environment, ``.env``, ``settings.ini``). Otherwise the default is used. An empty text counts as not set. A job can set
an option only if it is declared `per_job`. The job's field of the same name then overrides the variable. Any other
option belongs to the operator. A job with a field of its name is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from redis_consumer.consumers import defaults
from redis_consumer.errors import InvalidJob, SettingsError
from redis_consumer.job import OWN_FIELDS, Job
from redis_consumer.options import per_job as per_job
from redis_consumer.text import check_numbers, quoted

_LISTS = (list, tuple, set, frozenset)
_SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_MASK = "********"


class ConsumerOptions(BaseModel):
    """Base of a consumer's ``Options``: a frozen pydantic model that parses its values from texts.

    A field with several values (list, tuple, set) accepts them joined by commas.

    >>> class Options(ConsumerOptions):
    ...     channels: list[int] = []
    >>> Options.model_validate({"channels": "0,2"}).channels
    [0, 2]
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {name: _parts(cls.model_fields.get(name), value) for name, value in values.items()}

    @field_validator("*", mode="before")
    @classmethod
    def _only_plain_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        check_numbers(cls.model_fields[info.field_name or ""].annotation, value)
        return value


#: Options of a consumer without options. Each job reads them.
NO_OPTIONS = ConsumerOptions()

Options = TypeVar("Options", bound=ConsumerOptions)


@dataclass(frozen=True)
class Option:
    """An option, as it is shown to users.

    Attributes:
        name: its name; also that of the job's field if `is_per_job`.
        kind: description of the values that it takes.
        default: text of its default, None if it must be given.
        variable: the environment variable.
        description: what it means.
        is_per_job: whether a job can set it, or only the operator.
    """

    name: str
    kind: str
    default: str | None
    variable: str
    description: str
    is_per_job: bool = False


def describe_options(options: type[ConsumerOptions]) -> list[Option]:
    """List the options of a consumer in the order of their declaration."""
    return [
        Option(
            name,
            _kind(info),
            None if info.is_required() else as_text(info.get_default(call_default_factory=True)),
            name.upper(),
            info.description or "",
            is_per_job(options, name),
        )
        for name, info in options.model_fields.items()
    ]


def check_names(options: type[ConsumerOptions], owner: str) -> None:
    """Refuse options that can't be set: their name has another meaning, or their values can't be parsed from a text.

    Args:
        options: the consumer's.
        owner: the consumer, for messages.

    Raises:
        SettingsError: the option, and what to do.
    """
    for name, info in options.model_fields.items():
        problem = _problem_of_kind(info) or _problem_of_name(name)
        if problem:
            raise SettingsError(f"{owner}: its option {name!r} {problem}")


def _problem_of_kind(info: FieldInfo) -> str:
    kind = get_origin(_given(info)) or _given(info)
    if per_job not in info.metadata and _is_inside(info.annotation):
        return "has per_job inside its type; put it outside: Annotated[TYPE, per_job]"
    # An option whose annotation parses a text, such as pydantic's Json, has metadata.
    if isinstance(kind, type) and issubclass(kind, Mapping) and all(mark == per_job for mark in info.metadata):
        return f"is a {kind.__name__}, which no text gives; make its values options"
    if info.validation_alias is not None:
        return "has an alias, by which no job gives it; leave that out"
    return ""


def _problem_of_name(name: str) -> str:
    taken = "a setting" if defaults.is_setting(name) else "a field that workers write" if name in OWN_FIELDS else ""
    if not taken and name.islower():
        return ""
    why = f"is the name of {taken}" if taken else "isn't in lower case"
    return f"{why}; call it otherwise, e.g. my_{name.lower()}"


def read_variables(options: type[ConsumerOptions]) -> dict[str, str]:
    """Return the options that are set by variables, as texts.

    Raises:
        SettingsError: lists each wrong option with its value, its source and the allowed values.
    """
    if not options.model_fields:
        return {}
    found = defaults.variables([name.upper() for name in options.model_fields])
    texts = {name: found[name.upper()].text for name in options.model_fields if name.upper() in found}
    try:
        options.model_validate(texts)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        wrong = [each for each in problems if not (_is_absent(each) and is_per_job(options, _name_of(each)))]
        lines = [
            f"{name.upper()} = {_seen(options, name, texts)} ({found[name.upper()].source}): {_wanted(problem)}"
            if name in texts
            else f"{name.upper()}: is missing; set this variable of the worker"
            for problem in wrong
            if (name := _name_of(problem)) in texts or _is_absent(problem)
        ]
        if wrong:
            raise SettingsError("\n".join(lines) or f"options: {_wanted(wrong[0])}") from error
    return texts


def options_for(options: type[Options], variables: Mapping[str, str], job: Job) -> Options:
    """Return the options of a job.

    Args:
        options: the consumer's.
        variables: the result of `read_variables`.
        job: its fields override the variables, for options that are `per_job`.

    Raises:
        InvalidJob: names the wrong or missing field, its value and the allowed values. Also if the job sets an option
            of the operator.
    """
    given = {name: text for name in options.model_fields if (text := job.get(name).strip())}
    for name in given:
        if not is_per_job(options, name):
            raise InvalidJob(
                f"field {name}: only the operator sets this option, by the variable {name.upper()} of the worker; "
                "leave the field out",
                job_id=job.id,
            )
    values = {**variables, **given}
    try:
        return options.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = _name_of(problem)
        if _is_absent(problem):
            text = f"field {name}: missing; give it, or set the variable {name.upper()} of the worker"
        else:
            text = (
                f"field {name}: {_seen(options, name, values)}: {_wanted(problem)}"
                if name in values
                else _wanted(problem)
            )
        raise InvalidJob(text, job_id=job.id) from error


def as_texts(options: ConsumerOptions) -> dict[str, str]:
    """Return the values of options as texts, as in a job's fields, without secrets and unset ones."""
    kind = type(options)
    values = {name: getattr(options, name) for name in kind.model_fields if not is_secret(kind, name)}
    return {name: as_text(value) for name, value in values.items() if value is not None}


def secrets_of(options: ConsumerOptions) -> list[str]:
    """Return the names of the options whose values must not be shown."""
    kind = type(options)
    return [name for name in kind.model_fields if is_secret(kind, name)]


def is_per_job(options: type[ConsumerOptions], name: str) -> bool:
    """Return whether there is an option of this name that a job can set."""
    return name in options.model_fields and per_job in options.model_fields[name].metadata


def is_secret(options: type[ConsumerOptions], name: str) -> bool:
    """Return whether there is an option of this name whose value must not be shown."""
    return name in options.model_fields and "Secret" in str(options.model_fields[name].annotation)


def _name_of(problem: ErrorDetails) -> str:
    return str(problem["loc"][0]) if problem["loc"] else ""


def _is_absent(problem: ErrorDetails) -> bool:
    """Return whether an option is missing, and not only one of its values."""
    return problem["type"] == "missing" and len(problem["loc"]) == 1


def _wanted(problem: ErrorDetails) -> str:
    if problem["type"] == "missing":
        return "has too few values"
    message = problem["msg"].split(", unable to parse")[0]
    return message.replace("Input should be", "must be").removeprefix("Value error, ")


def _seen(options: type[ConsumerOptions], name: str, texts: Mapping[str, str]) -> str:
    """Return a value as it is shown in messages."""
    text = texts[name]
    if is_secret(options, name):
        return _MASK
    return quoted(text)


def as_text(value: object) -> str:
    """Return the value of an option as a text, as in a job's field. Several values are joined by commas."""
    if isinstance(value, _LISTS):
        return ",".join(map(as_text, value))
    return str(value.value if isinstance(value, Enum) else value)


def _parts(info: FieldInfo | None, value: object) -> object:
    """Split the text of a field that takes several values."""
    kind = None if info is None else _given(info)
    if not isinstance(value, str) or (get_origin(kind) or kind) not in _LISTS:
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def _given(info: FieldInfo) -> Any:
    """Return the type of a field without None."""
    kinds = [kind for kind in get_args(info.annotation) if kind is not type(None)]
    return kinds[0] if get_origin(info.annotation) in (Union, UnionType) and len(kinds) == 1 else info.annotation


def _is_inside(kind: Any) -> bool:
    """Return whether `per_job` is inside a type, where pydantic doesn't apply it to the option."""
    if get_origin(kind) is Annotated and per_job in kind.__metadata__:
        return True
    return any(map(_is_inside, get_args(kind)))


def _kind(info: FieldInfo) -> str:
    """Describe the values that a field takes, e.g. ``int, at least 0``."""
    kind = _given(info)
    choices = [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []
    if isinstance(kind, type) and issubclass(kind, Enum):
        choices = [str(choice.value) for choice in kind]
    name = " or ".join(choices) or (str(kind) if get_origin(kind) else getattr(kind, "__name__", str(kind)))
    bounds = [
        f"{words} {getattr(mark, sign)}"
        for mark in info.metadata
        for sign, words in _SIGNS.items()
        if hasattr(mark, sign)
    ]
    return ", ".join([name, *bounds])
