"""Runs a finished job again from its record, and compares the new result with the recorded one."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis_consumer.archives import check_result_zip
from redis_consumer.errors import ObjectNotFound, PermanentError, UnsafeArchive
from redis_consumer.job import Job
from redis_consumer.reproduce.comparison import FileDifference, compare_sums, compare_zips, draw_difference
from redis_consumer.reproduce.record import Record
from redis_consumer.reproduce.rerun import Rerun
from redis_consumer.storage import Storage
from redis_consumer.text import file_digest, result_stem


@dataclass(frozen=True)
class Reproduction:
    """Outcome of a reproduction.

    Attributes:
        job: key of the job.
        files: comparison of each file of the result.
        differences: ``field``, ``recorded`` and ``now`` of each condition that has changed.
        note: remark about the recorded result, or empty.
        seconds: duration of the new run.
    """

    job: str
    files: list[FileDifference]
    differences: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0

    @property
    def is_identical(self) -> bool:
        """Whether all labels, tracks and other outputs are the same."""
        return all(each.is_identical for each in self.files)


def reproduce(
    record: Record,
    bucket: Storage,
    folder: Path,
    *,
    fields: Mapping[str, str],
    trusted: Sequence[str] = (),
    keep: Path | None = None,
    on_write: Callable[[Job], None] | None = None,
) -> Reproduction:
    """Run a job again and compare the results. Nothing is written to Redis or the bucket.

    Args:
        record: record of the job, see `redis_consumer.reproduce.record.find_record`.
        bucket: bucket with input, results and models.
        folder: empty folder for temporary files.
        fields: as for `Rerun`.
        trusted: as for `Rerun`.
        keep: folder for both results, both records and pictures of the differences; None to keep nothing.
        on_write: as for `Rerun`.

    Raises:
        PermanentError: the job cannot be run again, or there is nothing to compare; the message says why.
        RetryableError: an outside service is unavailable.
        SettingsError: the consumer is not installed, or the record's settings are wrong.
    """
    (folder / "run").mkdir()
    rerun = Rerun(record, bucket, folder / "run", fields=fields, trusted=trusted, on_write=on_write)
    rerun.check_input()
    started = time.monotonic()
    new = rerun.run()
    seconds = time.monotonic() - started
    before, after = folder / "recorded.zip", folder / "reproduced.zip"
    rerun.bucket.download_file(new.result_key, after)
    files, note = _compare(record, bucket, before, after)
    if not files:
        raise PermanentError(f"result {record.result_key}: contains no images or other files to compare")
    found = Reproduction(record.job_id, files, rerun.differences(new), note, round(seconds, 3))
    if keep is not None:
        _keep(keep, found, {"recorded": record, "reproduced": new}, folder, rerun.input_path)
    return found


def _compare(record: Record, bucket: Storage, before: Path, after: Path) -> tuple[list[FileDifference], str]:
    recorded = record.output
    try:
        bucket.download_file(record.result_key, before)
    except ObjectNotFound as error:
        if not recorded.get("files"):
            raise PermanentError(
                f"result {record.result_key}: no longer exists, and its record does not list its files"
            ) from error
        found = compare_sums(recorded["files"], after, is_complete=not record.files_left_out)
        but = f", except for {record.files_left_out} that the record does not list" if record.files_left_out else ""
        return found, f"the recorded result no longer exists; the checksums of its files were compared{but}"
    is_changed = recorded.get("sha256") not in (None, file_digest(before))
    note = "the result has changed since it was recorded; the present result was compared" if is_changed else ""
    try:
        check_result_zip(before, record.result_key)
    except UnsafeArchive as error:
        raise PermanentError(
            f"result {record.result_key}: not a zip file, or damaged; there is nothing to compare"
        ) from error
    return compare_zips(before, after), note


def _keep(keep: Path, found: Reproduction, records: dict[str, Record], folder: Path, image: Path | None) -> None:
    """Write both results, both records, and a picture for each label image that differs."""
    for name, record in records.items():
        text = json.dumps(record.data, indent=1, ensure_ascii=False)
        (keep / f"{name}.json").write_text(text, encoding="utf-8")
        if (folder / f"{name}.zip").exists():
            shutil.copyfile(folder / f"{name}.zip", keep / f"{name}.zip")
    for each in found.files:
        if each.pixels and each.objects:
            picture = draw_difference(each.name, folder / "recorded.zip", folder / "reproduced.zip", image)
            stem = keep / result_stem(each.name)
            stem.parent.mkdir(parents=True, exist_ok=True)
            stem.with_name(f"difference-{stem.name}.png").write_bytes(picture)
