"""Finds, reads and checks the provenance record of a job."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from redis_consumer.consumers.options import ConsumerOptions, is_per_job
from redis_consumer.errors import InvalidJob, ObjectNotFound, PermanentError
from redis_consumer.job import FINAL_STATUSES, Job
from redis_consumer.provenance.record import FIELD, FORMAT

ENDING = ".provenance.json"
#: A record of 10,000 children has 2 MB.
MOST_BYTES = 64 << 20
#: Most levels of nested tables and lists. A record written by a worker has about six.
_MOST_LEVELS = 32
#: Keys that each table, and each entry of each list, must have.
_TABLES: dict[str, set[str]] = {
    "job": {"id", "attempt", "queue", "fields"},
    "consumer": {"origin"},
    "software": set(),
    "settings": set(),
}
_LISTS = {"models": {"model"}, "functions": {"name"}, "inputs": {"key"}, "outputs": {"key"}, "children": {"job"}}


@dataclass(frozen=True)
class Record:
    """A provenance record.

    Attributes:
        name: the name that it was found by.
        data: its content.
        result_key: key of the visible result, or the first one of the record if the job's hash no longer exists.
    """

    name: str
    data: Mapping[str, Any] = field(repr=False)
    result_key: str

    @property
    def job_id(self) -> str:
        """Key of the job."""
        return str(self.data["job"]["id"])

    @property
    def input_key(self) -> str:
        """Key of the job's own input.

        Raises:
            InvalidJob: the record does not name it.
        """
        key = self.data["job"].get("input")
        if not key:
            raise InvalidJob(f"{self.name}: its record does not name the input, so the job cannot be run again")
        return str(key)

    @property
    def output(self) -> Mapping[str, Any]:
        """Entry of the record for the visible result."""
        found = [each for each in self.data["outputs"] if each.get("key") == self.result_key]
        return found[0] if found else {"key": self.result_key}

    @property
    def files_left_out(self) -> int:
        """Number of result files that it does not list."""
        return int(self.data.get("left_out", {}).get("files", 0))


def find_record(name: str, bucket: Any, read_hash: Callable[[str], Mapping[str, str]]) -> Record:
    """Find a record by its file, by the object key of the record or the result zip, or by the key of its job.

    Args:
        name: any of these.
        bucket: a `Storage`.
        read_hash: reads the hash of a job, empty if there is none; called only for the key of a job.

    Raises:
        PermanentError: no record was found; the message says what is missing.
    """
    if os.path.isfile(name):
        return parse(name, _read_file(name))
    if name.endswith((ENDING, ".zip")) and ":" not in name:
        return parse(name, _read(bucket, name.removesuffix(".zip").removesuffix(ENDING) + ENDING))
    fields = read_hash(name)
    if not fields:
        raise InvalidJob(
            f"{name}: no such job, or it has expired; name its record instead, output/….provenance.json in the bucket"
        )
    if fields.get("status") not in FINAL_STATUSES:
        raise InvalidJob(f"{name}: is {fields.get('status')}; wait for its result")
    if not fields.get(FIELD):
        raise InvalidJob(f"{name}: has no provenance record: it failed, or an older worker ran it")
    return parse(name, _read(bucket, fields[FIELD]), result_key=fields.get("output_file_name", ""))


def parse(name: str, content: bytes, *, result_key: str = "") -> Record:
    """Check a record's form.

    Raises:
        InvalidJob: this version cannot read it.
    """
    try:
        data = json.loads(content)
        is_known = data["format"] == FORMAT
        wrong = _wrong_part(data) if is_known else ""
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidJob(f"{name}: not a provenance record ({type(error).__name__}: {error})") from error
    if not is_known:
        raise InvalidJob(
            f"{name}: format {data['format']!r} is not supported (only {FORMAT}); use a newer redis-consumer"
        )
    if wrong:
        raise InvalidJob(f"{name}: not a provenance record (its part {wrong} is not valid)")
    return Record(name, data, result_key or str(data["outputs"][0]["key"]))


def _wrong_part(data: Any) -> str:
    """Return the name of the first invalid part, empty if all are valid."""
    wrong = [part for part, keys in _TABLES.items() if not keys <= data[part].keys()]
    wrong += [part for part, keys in _LISTS.items() if not all(keys <= each.keys() for each in data[part])]
    wrong += [part for part, is_right in _details(data) if not is_right]
    return next(iter(wrong), "" if data["outputs"] else "outputs")


def _details(data: Any) -> Iterator[tuple[str, bool]]:
    """Yield the parts that a run needs, and whether each has the right type."""
    job = data["job"]
    json.dumps(job, ensure_ascii=False).encode()  # raises ValueError for a text that cannot be a key
    yield "job.fields", _are_texts(job["fields"].values())
    yield "job.id", _are_texts([job["id"], job["queue"], job.get("input") or ""])
    yield "job.attempt", isinstance(job["attempt"], int)
    yield "consumer.origin", _are_texts([data["consumer"]["origin"]])
    yield "options", isinstance(data.get("options", {}), dict)
    yield "settings.given", _are_texts(data["settings"].get("given", []))
    for part, name in (("models", "model"), ("inputs", "key"), ("outputs", "key")):
        yield part, _are_texts(each[name] for each in data[part])
    yield "left_out", isinstance(data.get("left_out", {}).get("files", 0), int)
    yield "children", _are_texts(each.get("record") or "" for each in data["children"])
    for output in data["outputs"]:
        yield "outputs.files", all({"name", "bytes", "crc32"} <= each.keys() for each in output.get("files", []))
    yield "that lies deepest", not _is_deep(data)


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(each, str) for each in values)


def _is_deep(data: Any) -> bool:
    """Whether lists and tables are nested too deep."""
    level = [data]
    for _ in range(_MOST_LEVELS):
        tables = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [each for table in tables for each in table]
    return bool(level)


def pinned(record: Record, others: Sequence[Mapping[str, Any]] = ()) -> Record:
    """Return a record in which "latest" and version labels are replaced by the versions that were used.

    Args:
        record: record of a job.
        others: models in other records, such as those of the job's children.
    """
    served = {
        each["model"]: f"{each['model'].rpartition(':')[0]}:{each['version_served']}"
        for each in [*others, *record.data["models"]]
        if each.get("version_served") and not _is_fixed(each["model"])
    }
    fields = record.data["job"]["fields"]
    asked = served.get(str(Job(record.job_id, fields).model))
    if asked:
        fields = {**fields, "model_version": asked.rpartition(":")[2]}
    changed = {
        "job": {**record.data["job"], "fields": fields},
        "settings": {
            name: served.get(value, value) if isinstance(value, str) else value
            for name, value in record.data["settings"].items()
        },
        "models": [{**each, "model": served.get(each["model"], each["model"])} for each in record.data["models"]],
    }
    return replace(record, data={**record.data, **changed})


def with_options(record: Record, options: type[ConsumerOptions]) -> Record:
    """Return a record whose job sets the recorded per-job options. Operator options come from this machine.

    Args:
        record: record of a job.
        options: options of the job's consumer.
    """
    job = record.data["job"]
    given = {name: text for name, text in record.data.get("options", {}).items() if is_per_job(options, name)}
    return replace(record, data={**record.data, "job": {**job, "fields": {**given, **job["fields"]}}})


def _is_fixed(model: str) -> bool:
    """Whether a model is named by a fixed version."""
    version = model.rpartition(":")[2]
    return bool(re.fullmatch("[0-9]{1,19}", version)) and int(version) > 0


def _read(bucket: Any, key: str) -> bytes:
    try:
        content: bytes = bucket.read_bytes(key, max_bytes=MOST_BYTES)
    except ObjectNotFound as error:
        raise PermanentError(
            f"record {key}: not found in the bucket; it may have been deleted with old results"
        ) from error
    return content


def _read_file(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidJob(
            f"{name}: cannot be read ({error.strerror}); use a record that you have permission to read"
        ) from error
    if len(content) > MOST_BYTES:
        raise InvalidJob(f"{name}: not a provenance record (it has more than {MOST_BYTES} bytes)")
    return content


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the conditions in which two records differ: ``field``, ``recorded`` and ``now``, None for no value."""
    old, new = _conditions(before), _conditions(after)
    names = list(dict.fromkeys([*old, *new]))
    return [
        {"field": name, "recorded": old.get(name), "now": new.get(name)}
        for name in names
        if old.get(name) != new.get(name)
    ]


def _conditions(record: Mapping[str, Any]) -> dict[str, Any]:
    parts = ("software", "consumer", "options", "settings", "model_server", "models", "functions", "detected", "inputs")
    found = {name: value for part in parts for name, value in _flat(part, record.get(part))}
    return {**found, **dict(_flat("job.fields", record["job"]["fields"]))}


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [pair for key, each in value.items() for pair in _flat(f"{name}.{key}", each)]
    if isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        return [pair for number, each in enumerate(value) for pair in _flat(f"{name}[{number}]", each)]
    return [(name, value)]
