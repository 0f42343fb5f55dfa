"""Segments images with one model for each role of a channel, as the kiosk's page asks for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from redis_consumer.consumers.claimed_job import Stages
from redis_consumer.consumers.image import ImageFileConsumer
from redis_consumer.errors import InvalidJob, ModelNotFound
from redis_consumer.images import split_frames
from redis_consumer.job import Job
from redis_consumer.text import quoted, result_stem, shown_name

#: Roles of the places in the field ``channels``, in the order of the labels (contract, sections 5.4 and 7).
ROLES = ("nuclear", "cytoplasm", "phase")
#: Setting with the model of each role.
_SETTINGS = ("NUCLEAR_MODEL", "CYTOPLASM_MODEL", "PHASE_MODEL")
_FEATURE = re.compile(r"_feature_([0-9]+)\.(?:tif|zarr)$")


class SegmentationConsumer(ImageFileConsumer):
    """Makes a label image for each channel that a job names, with the model of the channel's role.

    Contract, sections 5.1 and 5.4. The place of an index in ``channels`` is the role: nuclear, cytoplasm, phase. A job
    without ``channels``, or with a model of its own, runs one model like a job of `ImageFileConsumer`. The files are
    called ``<name>_batch_<b>_feature_<c>.tif``: one for each frame and each role that has a channel.
    """

    #: Number of the role that runs now, from 0, and the number of roles.
    _part = (0, 1)

    def _check_job(self, job: Job) -> None:
        """Refuse a job whose channels have no role, or whose roles have no model."""
        roles = roles_of(job)
        choices = self._segmentation().options.choices
        for role, _ in roles:
            model = choices.model_of(role)
            try:
                self.model_server.metadata(model, on_retry=self._note_retry)
            except ModelNotFound as error:
                others = [ROLES[other] for other, _ in roles if other != role]
                only = f"select the {' and '.join(others)} channel only, or " if others else ""
                raise ModelNotFound(
                    f"{shown_name(job.original_name)}: field channels {quoted(job.get('channels'))} gives a "
                    f"{ROLES[role]} channel, but its model {model} is not served; {only}ask the operator to serve it "
                    f"or to set {_SETTINGS[role]}",
                    job_id=job.id,
                    model=str(model),
                ) from error
        for view in _views(job, roles):
            super()._check_job(view)

    def _segment_file(self, job: Job, path: Path, folder: Path, stages: Stages) -> tuple[list[Path], dict[str, Any]]:
        """Run the model of each role, and number the results onward."""
        roles = roles_of(job)
        views = _views(job, roles)
        files: list[Path] = []
        fields: dict[str, Any] = {}
        features = 0
        try:
            for number, view in enumerate(views):
                self._part = (number, len(views))
                stages.begin_group(*self._part)
                own = folder / str(number)
                own.mkdir()
                # All roles are segmented at the scale of the first one.
                scale = str(self.redis.hget(job.id, "scale") or "") if number else view.get("scale")
                _, found = super()._segment_file(view.with_fields(scale=scale), path, own, stages)
                role = ROLES[roles[number][0]] if len(views) > 1 else ""
                moved, count = _collect(own, folder, result_stem(job.original_name), role, features)
                files, fields, features = files + moved, {**found, **fields}, features + count
        finally:
            self._part = (0, 1)
        return files, fields

    def _begin_group(self, number: int, groups: int) -> None:
        part, parts = self._part
        super()._begin_group(part * groups + number, parts * groups)

    def report_progress(self, done: int, total: int) -> None:
        """Write the progress of the running job, of which each role is an equal part."""
        part, parts = self._part
        super().report_progress(part * total + done, parts * total)


def roles_of(job: Job) -> list[tuple[int, int | str]]:
    """Return role and index (or name) of each channel that the job names; none if one model gets all of them.

    Raises:
        InvalidJob: a channel stands at a place without a role, or no channel is named.
    """
    places = job.channels or ()
    if job.model is not None or not places:
        return []
    roles: list[tuple[int, int | str]] = [(role, index) for role, index in enumerate(places) if index is not None]
    if not roles:
        raise InvalidJob(
            f"field channels: {quoted(job.get('channels'))} names none; give the index of a channel at the place of "
            f"its role ({', '.join(ROLES)}), e.g. 0, for nuclei or ,0 for cytoplasm",
            job_id=job.id,
        )
    last, _ = roles[-1]
    if last >= len(ROLES):
        raise InvalidJob(
            f"field channels: {quoted(job.get('channels'))} gives a channel at place {last + 1}; there are "
            f"{len(ROLES)} places: {', '.join(ROLES)}",
            job_id=job.id,
        )
    return roles


def _views(job: Job, roles: Sequence[tuple[int, int | str]]) -> list[Job]:
    """Return the job as that of one role, for each role; the job itself if one model gets all channels."""
    if len(roles) == 1 and job.label is not None:
        return [job.with_fields(channels=str(roles[0][1]))]
    return [job.with_fields(channels=str(index), label=str(role)) for role, index in roles] or [job]


def _collect(source: Path, target: Path, stem: PurePath, role: str, first: int) -> tuple[list[Path], int]:
    """Move the results of one role to those of the job, under the contract's names.

    Args:
        source: the folder of the role, which has a folder ``results``.
        target: the folder of the job, which gets one.
        stem: folders and beginning of the names of all files.
        role: for the names of files besides the label images; empty if there is one role.
        first: number of the role's first label image.

    Returns:
        The files, and the number of label images of a frame.
    """
    files: list[Path] = []
    place = (target / "results" / stem).parent
    place.mkdir(parents=True, exist_ok=True)
    entries = list((source / "results" / stem).parent.iterdir())
    features = {entry: int(match[1]) for entry in entries if (match := _FEATURE.search(entry.name))}
    for entry in sorted(entries, key=lambda each: (features.get(each, -1), each.name)):
        number = first + features.get(entry, 0)
        if entry not in features:
            rest = entry.name.removeprefix(stem.name)
            files.append(entry.rename(place / f"{stem.name}{'_' if role else ''}{role}{rest}"))
        elif entry.is_dir():
            moved = entry.rename(place / f"{stem.name}_feature_{number}.zarr")
            files += [file for file in sorted(moved.rglob("*")) if file.is_file()]
        else:
            files += split_frames(entry, place / stem.name, number)
    return files, len(features)
