"""`TrackingConsumer` and the image consumer in this process, on a real Redis, with the shipped model."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer import settings
from redis_consumer.consumers import ImageFileConsumer, TrackingConsumer, claimed_job
from redis_consumer.consumers.base import Consumer
from redis_consumer.models import ModelStore
from redis_consumer.queue import admin
from redis_consumer.redis import RedisClient
from redis_consumer.serving import open_model_server
from redis_consumer.storage import Storage
from redis_consumer.tracking import Linker, write_track_file
from support import movies
from support.movies import shuffled
from support.queues import claimed
from support.running import Result, run_with_children

JOB = "track:cells.tif:1"
MOVIE = movies.small_movie()
TRUTH = movies.true_labels(MOVIE)
SHAPE = (len(TRUTH), *TRUTH[0].shape)


@pytest.fixture
def consumers(redis_client: RedisClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Consumer]:
    """A consumer for each queue."""
    monkeypatch.setenv("NUCLEAR_MODEL", "NuclearSegmentation:1")
    settings.use(None)
    storage, models = Storage(tmp_path.as_uri()), ModelStore(None)
    server = open_model_server("onnx://", find_model=models.find)
    kinds: dict[str, type[Any]] = {"track": TrackingConsumer, "predict": ImageFileConsumer}
    return {
        queue: kind(redis_client, storage, queue, model_server=server, models=models) for queue, kind in kinds.items()
    }


@pytest.fixture
def run(consumers: dict[str, Consumer], redis_db: Any) -> Callable[..., Result]:
    """Runs one tracking job and all of its children; gives its hash and the files of its result."""

    def run(name: str, **fields: str) -> Result:
        given = {"status": "new", "input_file_name": f"uploads/{name}", "scale": "1"}
        return run_with_children(consumers, redis_db, JOB, {**given, **fields})

    return run


def labels_of(files: dict[str, bytes], name: str = "cells_feature_0.tif") -> Any:
    return tifffile.imread(io.BytesIO(files[name]))


def agreement(labels: Any) -> float:
    """Share of the true cells, over all frames, whose centre has the label of one track from first to last frame."""
    steady = total = 0
    for cell in {cell.label for frame in MOVIE.cells for cell in frame}:
        places = [(number, each) for number, frame in enumerate(MOVIE.cells) for each in frame if each.label == cell]
        inside = [(n, c) for n, c in places if 4 < c.y < SHAPE[1] - 4 and 4 < c.x < SHAPE[2] - 4]
        seen = [labels[number, int(each.y), int(each.x)] for number, each in inside]
        total += len(seen)
        steady += max((seen.count(label) for label in set(seen) - {0}), default=0)
    return steady / total


@pytest.mark.parametrize(("name", "write"), [("cells.tif", movies.write_tiff), ("cells.zip", movies.write_zip)])
def test_a_movie_becomes_tracks(run: Callable[..., Result], tmp_path: Path, name: str, write: Any) -> None:
    write(MOVIE, tmp_path / "uploads" / name)
    after, files = run(name, original_name=name)
    assert after["status"] == "done", after.get("reason")
    assert sorted(files) == ["cells_feature_0.tif", "lineage.json"]
    labels = labels_of(files)
    assert (labels.shape, labels.dtype) == (SHAPE, np.float32)
    assert agreement(labels) > 0.95
    lineage = json.loads(files["lineage.json"])
    assert set(lineage) == {str(int(label)) for label in np.unique(labels) if label}
    for text, track in lineage.items():
        seen = [number for number, frame in enumerate(labels) if (frame == int(text)).any()]
        assert track["frames"] == seen
    assert (after["progress"], after["total_jobs"]) == ("100", "1")


def test_frames_go_out_in_stacks_with_the_contracts_fields(
    run: Callable[..., Result], redis_db: Any, tmp_path: Path
) -> None:
    movies.write_tiff(MOVIE, tmp_path / "uploads" / "frames" / "cells.tif")
    run("frames/cells.tif", original_name="plate/cells.tif")
    (child,) = redis_db.keys("predict:*")
    fields = redis_db.hgetall(child)
    assert child.startswith("predict:cells-tracking-frame-0.tif:")
    assert (fields["channels"], fields["dimension_order"], fields["scale"]) == ("0,,", "BXY", "1")
    assert "model_name" not in fields
    assert 0 < redis_db.ttl(child) <= 3600


def test_progress_rises_to_the_end_through_both_phases(
    run: Callable[..., Result], consumers: dict[str, Consumer], redis_db: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    shown: list[int] = []
    monkeypatch.setattr(claimed_job, "PROGRESS_S", 0.0)
    monkeypatch.setattr(consumers["track"], "on_update", lambda: shown.append(int(redis_db.hget(JOB, "progress"))))
    movies.write_tiff(MOVIE, tmp_path / "uploads" / "cells.tif")
    after, _ = run("cells.tif", original_name="cells.tif", outputs="all", progress="70")
    assert (after["status"], after["progress"]) == ("done", "100")
    # What an earlier run has shown is gone, and the second phase begins where the children ended.
    assert shown == sorted(shown)
    assert shown[0] == 0
    assert {90, 91, 92, 93, 94, 95, 96, 97, 98} <= set(shown)


def test_frames_that_nobody_knows_of_any_more_fail_the_movie_in_words(
    consumers: dict[str, Consumer], redis_db: Any, tmp_path: Path
) -> None:
    movies.write_tiff(MOVIE, tmp_path / "uploads" / "cells.tif")
    redis_db.hset(JOB, mapping={"status": "new", "input_file_name": "uploads/cells.tif"})
    redis_db.lpush("track", JOB)
    run_next(consumers["track"])
    redis_db.delete(f"redis-consumer:children:{JOB}", f"redis-consumer:family:{JOB}")
    redis_db.lpush("track", JOB)
    run_next(consumers["track"])
    assert redis_db.hget(JOB, "reason").startswith("PermanentError: cells.tif: frames 0 to 7 could not be segmented: ")


@pytest.mark.parametrize("last", [2, 5])
def test_a_movie_that_is_cancelled_while_cells_are_linked_goes_no_further(
    run: Callable[..., Result], consumers: dict[str, Consumer], tmp_path: Path, monkeypatch: Any, last: int
) -> None:
    linked: list[int] = []

    class Watched(Linker):
        def add(self, labels: Any, shift_px: tuple[int, int] = (0, 0)) -> None:
            linked.append(len(linked))
            if linked[-1] == last:
                admin.cancel(consumers["track"].job_queue, JOB)
            super().add(labels, shift_px)

    monkeypatch.setattr(claimed_job, "PROGRESS_S", 0.0)
    monkeypatch.setattr("redis_consumer.consumers.tracking.Linker", Watched)
    movies.write_tiff(MOVIE, tmp_path / "uploads" / "cells.tif")
    after, _ = run("cells.tif", original_name="cells.tif")
    assert (after["status"], after["reason"].partition(":")[0]) == ("failed", "JobCancelled")
    assert linked == list(range(last + 1))


def test_every_output_is_there_where_it_is_asked_for(run: Callable[..., Result], tmp_path: Path) -> None:
    movies.write_tiff(MOVIE, tmp_path / "uploads" / "cells.tif")
    after, files = run("cells.tif", original_name="cells.tif", outputs="all")
    assert after["status"] == "done", after.get("reason")
    masks = [f"01_RES/mask{number:03d}.tif" for number in range(len(TRUTH))]
    others = ["01_RES/res_track.txt", "cells.trk", "cells_feature_0.tif", "lineage.json", "tracks.csv", "tracks.gif"]
    assert set(files) >= {*masks, *others}
    assert files["tracks.gif"].startswith(b"GIF89a")
    with tarfile.open(fileobj=io.BytesIO(files["cells.trk"])) as archive:
        assert sorted(archive.getnames()) == ["lineage.json", "raw.npy", "tracked.npy"]
        tracked = np.load(io.BytesIO(archive.extractfile("tracked.npy").read()))  # type: ignore[union-attr]
    np.testing.assert_array_equal(tracked[..., 0], labels_of(files))


def test_an_unknown_output_fails_in_words(run: Callable[..., Result], tmp_path: Path) -> None:
    movies.write_tiff(MOVIE, tmp_path / "uploads" / "cells.tif")
    after, _ = run("cells.tif", outputs="csv, movie")
    assert (
        after["reason"]
        == "InvalidJob: field outputs: 'movie' is unknown; give some of trk, ctc, csv, preview, labels, "
        "ome, rois, geojson, table, parquet, overlay, or all"
    )


def test_a_track_file_is_linked_anew_by_its_own_labels(run: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "uploads" / "cells.trk"
    path.parent.mkdir()
    images = [MOVIE.image(number) for number in range(len(TRUTH))]
    mixed = [shuffled(labels, number) for number, labels in enumerate(TRUTH)]
    write_track_file(path, images, mixed, [], shape=SHAPE)
    after, files = run("cells.trk", original_name="cells.trk")
    assert after["status"] == "done", after.get("reason")
    assert agreement(labels_of(files)) == 1.0


def test_a_movie_whose_frames_fail_says_which_and_why(run: Callable[..., Result], tmp_path: Path) -> None:
    movies.write_tiff(MOVIE, tmp_path / "uploads" / "cells.tif")
    after, _ = run("cells.tif", original_name="cells.tif", scale="99")
    assert after["status"] == "failed"
    assert after["reason"].startswith(
        "PermanentError: cells.tif: frames 0 to 7 could not be segmented: InvalidJob: field"
    )


def test_one_frame_is_no_reason_to_fail(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    tifffile.imwrite(tmp_path / "uploads" / "one.tif", MOVIE.image(0))
    after, files = run("one.tif", original_name="one.tif")
    assert after["status"] == "done", after.get("reason")
    assert labels_of(files, "one_feature_0.tif").squeeze().shape == SHAPE[1:]


@pytest.mark.parametrize("name", ["a.png", "a.npy", ""])
def test_other_files_are_refused(run: Callable[..., Result], name: str) -> None:
    after, _ = run(name)
    assert after["status"] == "failed"


def test_older_workers_results_of_one_file_a_frame_are_taken(
    consumers: dict[str, Consumer], redis_db: Any, tmp_path: Path
) -> None:
    movies.write_tiff(MOVIE, tmp_path / "uploads" / "cells.tif")
    redis_db.hset(JOB, mapping={"status": "new", "input_file_name": "uploads/cells.tif", "original_name": "cells.tif"})
    redis_db.lpush("track", JOB)
    run_next(consumers["track"])
    job = consumers["predict"].job_queue.claim()
    assert job is not None
    path = tmp_path / "old.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, labels in enumerate(TRUTH):
            buffer = io.BytesIO()
            tifffile.imwrite(buffer, labels.astype(np.float32))
            archive.writestr(f"cells_batch_{number}_feature_0.tif", buffer.getvalue())
    key, _ = consumers["predict"].storage.upload(path)
    consumers["predict"].job_queue.complete(job, {"status": "done", "output_file_name": key}, is_success=True)
    run_next(consumers["track"])
    after = redis_db.hgetall(JOB)
    assert after["status"] == "done", after.get("reason")
    content = consumers["track"].storage.read_bytes(after["output_file_name"])
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert agreement(tifffile.imread(io.BytesIO(archive.read("cells_feature_0.tif")))) == 1.0


def run_next(consumer: Consumer) -> None:
    consumer.run(claimed(consumer.job_queue))


def test_a_drifting_movie_is_tracked_where_that_is_asked_for(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_CORRECT_ENABLED", "true")
    monkeypatch.setenv("MAX_DISTANCE", "12")
    settings.use(None)
    (tmp_path / "uploads").mkdir()
    images = [np.roll(MOVIE.image(0), 20 * number, axis=0) for number in range(3)]
    labels = [np.roll(TRUTH[0], 20 * number, axis=0) for number in range(3)]
    write_track_file(tmp_path / "uploads" / "cells.trk", images, labels, [], shape=(3, *SHAPE[1:]))
    after, files = run("cells.trk", original_name="cells.trk", outputs="csv")
    assert after["status"] == "done", after.get("reason")
    lengths = [len(track["frames"]) for track in json.loads(files["lineage.json"]).values()]
    assert lengths.count(3) >= len(np.unique(TRUTH[0])) - 3


def test_each_movie_of_a_trks_file_is_tracked(run: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "uploads" / "cells.trks"
    path.parent.mkdir()
    raw = np.stack([MOVIE.image(number) for number in range(2)])[np.newaxis, ..., np.newaxis]
    labels = np.stack(TRUTH[:2])[np.newaxis, ..., np.newaxis]
    with tarfile.open(path, "w:gz") as archive:
        for member, array in (("raw.npy", raw), ("tracked.npy", labels)):
            buffer = io.BytesIO()
            np.save(buffer, np.concatenate([array, array]))
            entry = tarfile.TarInfo(member)
            entry.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(entry, buffer)
    after, files = run("cells.trks", original_name="day/cells.trks")
    assert after["status"] == "done", after.get("reason")
    names = [f"movie_{number}/{name}" for number in (0, 1) for name in ("day/cells_feature_0.tif", "lineage.json")]
    assert sorted(files) == sorted(names)
    assert files["movie_0/lineage.json"] == files["movie_1/lineage.json"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [({"MAX_IMAGE_FRAMES": "7"}, "8 frames, allowed are 7"), ({"MAX_IMAGE_WIDTH": "100"}, "allowed are 2048 x 100")],
)
def test_a_movie_that_is_too_large_is_refused_before_its_frames_go_out(
    run: Callable[..., Result],
    redis_db: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    message: str,
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    settings.use(None)
    movies.write_tiff(MOVIE, tmp_path / "uploads" / "cells.tif")
    after, _ = run("cells.tif", original_name="cells.tif")
    assert after["status"] == "failed"
    assert message in after["reason"]
    assert redis_db.keys("predict:*") == []


def test_a_movie_of_objects_without_end_is_refused_by_its_name(run: Callable[..., Result], tmp_path: Path) -> None:
    labels = np.arange(1, 255 * 256 + 1).reshape(255, 256)
    path = tmp_path / "uploads" / "dust.trk"
    path.parent.mkdir()
    write_track_file(path, [labels, labels], [labels, labels], [], shape=(2, 255, 256))
    fields, _ = run("dust.trk", original_name="dust.trk")
    assert fields["status"] == "failed"
    assert fields["reason"].startswith("InvalidImage: dust.trk: two successive frames hold 65280 and 65280 objects")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ({"a.tif": (8, 9), "b.tif": (8, 8)}, "frame b.tif has 8 x 8 pixels, the first one 8 x 9"),
        ({"readme.txt": None}, "holds no images"),
        ({"a.tif": (5, 8, 9)}, "a.tif: holds 5 frames"),
    ],
)
def test_a_zip_that_is_no_movie_is_refused_in_words(
    run: Callable[..., Result], tmp_path: Path, frames: dict[str, Any], message: str
) -> None:
    (tmp_path / "uploads").mkdir()
    with zipfile.ZipFile(tmp_path / "uploads" / "cells.zip", "w") as archive:
        for name, shape in frames.items():
            buffer = io.BytesIO()
            if shape:
                tifffile.imwrite(buffer, np.zeros(shape, np.uint16), photometric="minisblack")
            archive.writestr(name, buffer.getvalue())
    after, _ = run("cells.zip", original_name="cells.zip")
    assert after["reason"].startswith("InvalidImage: ")
    assert message in after["reason"]


@pytest.mark.parametrize("function", ["deep_watershed", ""])
def test_frames_get_the_model_that_the_settings_name(
    run: Callable[..., Result], redis_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.setenv("TRACKING_SEGMENT_MODEL", "NuclearSegmentation:1")
    monkeypatch.setenv("TRACKING_POSTPROCESS_FUNCTION", function)
    settings.use(None)
    movies.write_tiff(MOVIE, tmp_path / "uploads" / "cells.tif")
    after, _ = run("cells.tif", original_name="cells.tif")
    assert after["status"] == "done", after.get("reason")
    (child,) = redis_db.keys("predict:*")
    names = ["model_name", "model_version", "postprocess_function", "cuts"]
    assert redis_db.hmget(child, names) == ["NuclearSegmentation", "1", function or None, "0"]


def test_a_segmentation_of_another_size_is_refused_in_words(
    consumers: dict[str, Consumer], redis_db: Any, tmp_path: Path
) -> None:
    movies.write_tiff(MOVIE, tmp_path / "uploads" / "cells.tif")
    redis_db.hset(JOB, mapping={"status": "new", "input_file_name": "uploads/cells.tif"})
    redis_db.lpush("track", JOB)
    run_next(consumers["track"])
    job = consumers["predict"].job_queue.claim()
    assert job is not None
    tifffile.imwrite(tmp_path / "a_feature_0.tif", np.zeros((5, 5), np.float32))
    with zipfile.ZipFile(tmp_path / "wrong.zip", "w") as archive:
        archive.write(tmp_path / "a_feature_0.tif", "a_feature_0.tif")
    key, _ = consumers["predict"].storage.upload(tmp_path / "wrong.zip")
    consumers["predict"].job_queue.complete(job, {"status": "done", "output_file_name": key}, is_success=True)
    run_next(consumers["track"])
    wanted = "holds label images of shape (5, 5), wanted (8, 160, 160); check the workers of SEGMENTATION_QUEUE"
    assert redis_db.hget(JOB, "reason").endswith(wanted)


def test_a_job_that_is_over_is_left_as_it_is(consumers: dict[str, Consumer], redis_db: Any) -> None:
    redis_db.hset(JOB, mapping={"status": "done", "input_file_name": "uploads/cells.tif"})
    assert consumers["track"]._consume(JOB) == "done"
    assert not consumers["track"].is_valid_hash(None)
    assert redis_db.hgetall(JOB) == {"status": "done", "input_file_name": "uploads/cells.tif"}
