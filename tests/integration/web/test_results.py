"""Objects, files in every format, corrections of labels and regions: made in child processes of a real result."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from tifffile import TiffFile, imread

from support.web import Api


def labels_of(api: Api, job_id: str) -> Any:
    return imread(io.BytesIO(api.ask("GET", f"/jobs/{job_id}/files/labels.tif").content))


def correct(api: Api, job_id: str, *ops: dict[str, Any], base: int = 0, status: int = 200) -> Any:
    return api.ask("PATCH", f"/jobs/{job_id}/labels", status, json={"base": base, "ops": list(ops)})


def test_objects(api: Api, done: str) -> None:
    found = api.ask("GET", f"/jobs/{done}/objects")
    names = [column["name"] for column in found["columns"]]
    assert found["total"] == len(found["rows"]) == 6
    assert {"label", "area_px", "area_um2"} <= set(names)
    assert {"name": "area_um2", "unit": "µm²"} in found["columns"]
    few = api.ask("GET", f"/jobs/{done}/objects?columns=label,area_px&t=0")
    assert [row[0] for row in few["rows"]] == [1, 2, 3, 4, 5, 6]
    assert api.ask("GET", f"/jobs/{done}/objects?t=7")["total"] == 0
    text = api.ask("GET", f"/jobs/{done}/objects?format=csv&columns=label").text
    assert text == "label\n1\n2\n3\n4\n5\n6\n"
    assert "area_px" in api.ask("GET", f"/jobs/{done}/objects?columns=aera", 422)["hint"]


def test_files_in_every_format(api: Api, done: str) -> None:
    job = api.ask("GET", f"/jobs/{done}")
    found = {file["name"]: api.ask("GET", file["url"].removeprefix("/api/v1")) for file in job["files"]}
    assert found.keys() == {
        "labels.tif", "labels.ome.tif", "rois.zip", "objects.geojson", "objects.csv", "objects.parquet", "overlay.png",
        "result.zip",
    }  # fmt: skip
    labels = imread(io.BytesIO(found["labels.tif"].content))
    assert (str(labels.dtype), labels.shape, len(np.unique(labels))) == ("uint16", (120, 160), 7)
    with TiffFile(io.BytesIO(found["labels.ome.tif"].content)) as tif:
        assert tif.is_ome
        assert np.array_equal(tif.asarray(), labels)
    with zipfile.ZipFile(io.BytesIO(found["rois.zip"].content)) as archive:
        assert len(archive.namelist()) == 6
    assert len(found["objects.geojson"]["features"]) == 6
    assert found["objects.parquet"].content[:4] == b"PAR1"
    assert found["overlay.png"].content[:4] == b"\x89PNG"
    assert found["objects.csv"].headers["content-disposition"] == 'attachment; filename="nuclei_objects.csv"'
    assert zipfile.is_zipfile(io.BytesIO(found["result.zip"].content))


def test_a_file_is_resumed(api: Api, done: str) -> None:
    reply = api.ask("GET", f"/jobs/{done}/files/result.zip", 206, headers={"Range": "bytes=0-3"})
    assert reply.content == b"PK\3\4"


def test_files_of_a_job_without_a_result(api: Api) -> None:
    job_id = api.submit()["id"]
    assert "no result" in api.ask("GET", f"/jobs/{job_id}/files/labels.tif", 404)["detail"]
    api.ask("GET", f"/jobs/{job_id}/files/evil.exe", 422)
    correct(api, job_id, {"op": "delete", "label": 1}, status=404)


def test_an_expired_result(api: Api, done: str) -> None:
    api.context.storage.delete(api.context.client.hget(done, "output_file_name"))
    assert "expired" in api.ask("GET", f"/jobs/{done}/objects", 404)["detail"]


def test_corrections_make_a_new_version_and_keep_the_old_one(api: Api, done: str, redis_db: Any) -> None:
    before, old = labels_of(api, done), redis_db.hgetall(done)
    job = correct(api, done, {"op": "delete", "label": 1}, {"op": "merge", "labels": [2, 3]})
    assert (job["version"], job["objects"]) == (1, 4)
    after = labels_of(api, done)
    assert np.array_equal(after, np.where(before == 1, 0, np.where(before == 3, 2, before)))
    rows = api.ask("GET", f"/jobs/{done}/objects?columns=label,area_px")["rows"]
    assert [row[0] for row in rows] == [2, 4, 5, 6]
    assert rows[0][1] == int(np.isin(before, (2, 3)).sum())
    assert api.context.storage.exists(old["output_file_name"])
    new = redis_db.hgetall(done)
    record = json.loads(api.context.storage.read_bytes(new["provenance_file_name"]))
    [entry] = record["corrections"]
    assert (entry["version"], entry["of"], entry["result"]) == (1, old["output_file_name"], new["output_file_name"])
    assert [op["op"] for op in entry["ops"]] == ["delete", "merge"]
    assert {name: record[name] for name in record if name != "corrections"} == json.loads(
        api.context.storage.read_bytes(old["provenance_file_name"])
    )
    assert correct(api, done, {"op": "delete", "label": 2}, base=1)["version"] == 2
    record = json.loads(api.context.storage.read_bytes(redis_db.hget(done, "provenance_file_name")))
    assert [each["version"] for each in record["corrections"]] == [1, 2]


def test_split_and_paint(api: Api, done: str) -> None:
    before = labels_of(api, done)
    ys, xs = np.nonzero(before == 5)
    ends = [[int(ys[0]), int(xs[0])], [int(ys[-1]), int(xs[-1])]]
    paint = {"op": "paint", "label": 9, "t": 0, "z": 0, "runs": [[0, 0, 5], [1, 0, 5]]}
    job = correct(api, done, {"op": "split", "label": 5, "points": ends}, paint)
    after = labels_of(api, done)
    assert job["objects"] == 8
    assert set(np.unique(after[before == 5])) == {5, 7}
    assert (after == 9).sum() == 10
    assert np.array_equal(after[(before != 5) & (after != 9)], before[(before != 5) & (after != 9)])


@pytest.mark.parametrize(
    ("op", "words"),
    [
        ({"op": "delete", "label": 99}, "no object 99"),
        ({"op": "merge", "labels": [1, 99]}, "no object 99"),
        ({"op": "split", "label": 1, "points": [[0, 0], [1, 1]]}, "is not in object 1"),
        ({"op": "split", "label": 1, "points": [[0, 0], [9999, 1]]}, "is not in object 1"),
        ({"op": "paint", "label": 1, "runs": [[500, 0, 5]]}, "outside of the image"),
        ({"op": "paint", "label": 1, "runs": [[5, 5, 5]]}, "outside of the image"),
        ({"op": "paint", "label": 1, "t": 3, "runs": [[5, 0, 5]]}, "t = 3, z = 0 is outside"),
    ],
)
def test_wrong_corrections_change_nothing(api: Api, done: str, redis_db: Any, op: dict[str, Any], words: str) -> None:
    fields = redis_db.hgetall(done)
    found = correct(api, done, op, status=422)
    assert (found["field"], words in found["detail"]) == ("ops.0", True), found
    assert redis_db.hgetall(done) == fields


def test_a_correction_of_an_older_version_is_a_conflict(api: Api, done: str) -> None:
    assert correct(api, done, {"op": "delete", "label": 1}, base=3, status=409)["field"] == "base"


def test_a_region_runs_as_a_copy(api: Api, done: str, redis_db: Any) -> None:
    region = {"x": 60, "y": 5, "width": 50, "height": 40}
    job = api.ask("POST", f"/jobs/{done}/again", 201, json={"region": region})
    assert (job["region"], job["again_of"], job["input"]["name"]) == (region, done, "nuclei-region.ome.tif")
    key = redis_db.hget(job["id"], "input_file_name")
    with TiffFile(io.BytesIO(api.context.storage.read_bytes(key))) as tif:
        copy, axes, xml = tif.asarray(), tif.series[0].axes, tif.ome_metadata or ""
    assert axes.endswith("CYX")
    whole = imread(io.BytesIO(api.context.storage.read_bytes("uploads/nuclei.tif")))
    assert np.array_equal(copy.reshape(2, 40, 50), whole[:, 5:45, 60:110])
    assert 'PhysicalSizeX="0.65' in xml
    found = api.ask("POST", f"/jobs/{done}/again", 422, json={"region": {**region, "x": 150}})
    assert (found["field"], "outside of the image" in found["detail"]) == ("region", True)
    api.ask("POST", f"/jobs/{job['id']}/again", 422, json={"region": region})
