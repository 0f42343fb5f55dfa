"""The statements of README and of the project's papers are true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redis_consumer
from redis_consumer import errors
from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.redis import RedisClient
from redis_consumer.settings import Settings
from redis_consumer.storage import Storage
from support import onnx_models
from support.documents import PAPERS, README, ROOT, blocks, name_of

TEXT = README.read_text(encoding="utf-8")
KEY = "cover:half.npy:1"


def test_the_readme_is_short() -> None:
    assert 80 <= len(TEXT.splitlines()) <= 150


@pytest.mark.parametrize("path", PAPERS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8"))
    missing = [each for each in targets if "://" not in each and not (path.parent / each.partition("#")[0]).exists()]
    assert missing == []


def test_the_consumer_in_the_readme_runs(
    redis_client: RedisClient, redis_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_SERVER", "onnx://")
    onnx_models.save(tmp_path / "models", "Scaling", 1, onnx_models.scaling(2.0))
    (tmp_path / "uploads").mkdir()
    np.save(tmp_path / "uploads" / "half.npy", np.repeat(np.array([[0.0, 0.4]], np.float32), 4, axis=0))
    (code,) = blocks(README, "python")
    names: dict[str, Any] = {"__name__": "my_coverage"}
    exec(code, names)
    fields = {"status": "new", "input_file_name": "uploads/half.npy", "model_name": "Scaling", "model_version": "1"}
    redis_db.hset(KEY, mapping=fields)
    redis_db.lpush("cover", KEY)
    consumer = names["Coverage"](redis_client=redis_client, storage_client=Storage(tmp_path.as_uri()), queue="cover")

    assert consumer.run(consumer.job_queue.claim()) is Outcome.SETTLED

    job = redis_db.hgetall(KEY)
    assert (job["status"], job["coverage"]) == ("done", "0.5"), job
    assert (tmp_path / job["output_file_name"]).is_file()
    assert len(code.splitlines()) <= 20


def test_every_kind_of_error_is_in_the_table() -> None:
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type) and name != "ConsumerError"]
    assert [name for name in kinds if f"`{name}`" not in TEXT] == []


def test_settings_in_the_readme_have_their_true_defaults() -> None:
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \| (`[^|]+`) \|", TEXT, re.MULTILINE)
    pairs = [pair for names, values in rows for pair in zip(names.split(", "), values.split(", "), strict=True)]
    assert len(pairs) > 10
    for name, value in pairs:
        field = Settings.model_fields[name.strip("`").lower()]
        if field.default_factory is None:
            assert value.strip("`") == str(field.default), name


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (top, *_) = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    assert top.partition(".dev")[0] == redis_consumer.__version__.partition(".dev")[0]
    assert "### How to move over" in changelog
