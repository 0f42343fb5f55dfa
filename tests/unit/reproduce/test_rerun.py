from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from redis_consumer.reproduce.record import parse
from redis_consumer.reproduce.rerun import Rerun
from redis_consumer.storage import Storage


def content(*, origin: str = "redis_consumer.consumers.zip_file:ZipFileConsumer", **changes: Any) -> bytes:
    record = {
        "format": 1,
        "job": {"id": "predict-zip:a:1", "attempt": 1, "queue": "predict-zip", "input": "uploads/a.zip", "fields": {}},
        "consumer": {"origin": origin},
        "software": {},
        "settings": {},
        "models": [],
        "functions": [],
        "inputs": [],
        "outputs": [{"key": "output/a.zip"}],
        "children": [],
    }
    return json.dumps({**record, **changes}).encode()


def test_children_are_run_as_the_first_that_has_a_record(tmp_path: Path) -> None:
    bucket = Storage("memory://")
    bucket.write_bytes("output/child.provenance.json", content(origin="plug_in:Consumer"))
    failed = [{"job": f"predict:{number}", "status": "failed", "record": ""} for number in range(20)]
    children = [*failed, {"job": "predict:20", "status": "done", "record": "output/child.provenance.json"}]
    rerun = Rerun(parse("record.json", content(children=children)), bucket, tmp_path, fields={})
    assert rerun._ways[False].data["consumer"]["origin"] == "plug_in:Consumer"
