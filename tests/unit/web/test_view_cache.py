"""The cache of views: each view is made once, old ones are removed, and what goes wrong is told and tried again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer.errors import ConsumerError, InvalidImage, OutOfResources, StorageUnavailable
from redis_consumer.storage import Storage
from redis_consumer.web.view import cache as cache_module
from redis_consumer.web.view.cache import ViewCache, ViewSource, ViewState
from redis_consumer.web.view.decoders import DecoderLimits, decode
from redis_consumer.web.view.layout import ViewLayer
from redis_consumer.web.view.tiles import stored_tile

Decode = Callable[..., dict[str, Any]]


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    (tmp_path / "bucket" / "uploads").mkdir(parents=True)
    return tmp_path / "bucket"


@pytest.fixture
def views(bucket: Path, tmp_path: Path) -> ViewCache:
    return ViewCache(tmp_path / "views", Storage(f"file://{bucket}"))


def add(bucket: Path, name: str = "a.tif", side: int = 40) -> ViewSource:
    image = np.random.default_rng(0).integers(0, 4000, (side, side)).astype(np.uint16)
    tifffile.imwrite(bucket / "uploads" / name, image)
    return ViewSource("make_image", f"uploads/{name}", name)


def ended(views: ViewCache, source: ViewSource) -> ViewState:
    state = views.look(source)
    if state.done is not None:
        state.done.result(60)
    return views.state_of(source)


def replaced(monkeypatch: pytest.MonkeyPatch, call: Decode) -> list[str]:
    """Let views be made by another function; return the calls with which it was asked."""
    calls: list[str] = []

    def counted(asked: str, request: Mapping[str, Any], limits: DecoderLimits, **kwargs: Any) -> dict[str, Any]:
        calls.append(asked)
        return call(asked, request, limits, **kwargs)

    monkeypatch.setattr(cache_module, "decode", counted)
    return calls


def test_two_requests_make_a_view_once(views: ViewCache, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def waiting(*args: Any, **kwargs: Any) -> dict[str, Any]:
        go_on.wait(60)
        return decode(*args, **kwargs)

    calls = replaced(monkeypatch, waiting)
    source = add(bucket)
    first, second = views.look(source), views.look(source)
    assert first.done is second.done is not None
    go_on.set()
    assert ended(views, source).progress == 100
    assert ended(views, source).layers is not None
    assert calls == ["make_image"]


def test_a_view_is_there_after_a_restart(views: ViewCache, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = add(bucket)
    made = ended(views, source)
    calls = replaced(monkeypatch, decode)
    again = ViewCache(views.folder, views.storage).look(source)
    assert (again.layers, again.facts) == (made.layers, made.facts)
    assert calls == []


def test_a_view_whose_making_was_interrupted_is_made_again(views: ViewCache, bucket: Path) -> None:
    source = add(bucket)
    folder = views.folder / source.id
    folder.mkdir()
    (folder / "image.tif").write_bytes(b"half")
    state = ended(views, source)
    assert state.layers is not None
    layer: ViewLayer = state.layers["image"]
    assert stored_tile(folder, layer, 0, 0, 0, 0)


def test_the_views_that_were_used_longest_ago_go_first(bucket: Path, tmp_path: Path) -> None:
    views = ViewCache(tmp_path / "views", Storage(f"file://{bucket}"), max_bytes=10**9)
    sources = [add(bucket, f"{number}.tif", 600) for number in range(3)]
    for age, source in enumerate(sources):
        assert ended(views, source).layers is not None
        os.utime(views.folder / source.id / "view.json", (1000 - age, 1000 - age))
    one = sum(path.stat().st_size for path in (views.folder / sources[0].id).iterdir())
    views.max_bytes = 2 * one + 1000
    views.prune()
    assert [(views.folder / source.id).exists() for source in sources] == [True, True, False]
    assert views.state_of(sources[2]).layers is None
    assert ended(views, sources[2]).layers is not None
    assert [(views.folder / source.id).exists() for source in sources] == [True, False, True]


def test_a_killed_child_is_told_and_tried_again_later(
    views: ViewCache, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **kwargs: Any) -> dict[str, Any]:
        raise OutOfResources(f"{kwargs['name']}: the process that reads it was ended; split the file")

    calls = replaced(monkeypatch, killed)
    source = add(bucket)
    assert "was ended" in str(ended(views, source).problem)
    assert "was ended" in str(views.look(source).problem)
    assert calls == ["make_image"]
    now = cache_module._now()
    monkeypatch.setattr(cache_module, "_now", lambda: now + 31)
    replaced(monkeypatch, decode)
    assert ended(views, source).layers is not None


def test_an_unreadable_image_is_not_read_again(views: ViewCache, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bucket / "uploads" / "a.tif").write_bytes(b"")
    calls = replaced(monkeypatch, decode)
    source = ViewSource("make_image", "uploads/a.tif", "a.tif")
    assert isinstance(ended(views, source).problem, InvalidImage)
    assert "the file is empty" in str(views.look(source).problem)
    assert calls == ["make_image"]


def test_a_large_image_has_its_facts_before_its_tiles(
    views: ViewCache, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, seen = threading.Event(), []

    def large(call: str, request: Mapping[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        seen.append(request["is_whole"])
        if not request["is_whole"]:
            (Path(request["folder"]) / "facts.json").write_text('{"width": 40}')
            return {"is_complete": False}
        kwargs["tick"](0.5)
        go_on.wait(60)
        return decode(call, request, *args, **kwargs)

    replaced(monkeypatch, large)
    source = add(bucket)
    done = views.look(source).done
    while len(seen) < 2 or not views.state_of(source).progress:
        pass
    half = views.state_of(source)
    assert (half.facts, half.layers, half.progress) == ({"width": 40}, None, 49.5)
    # Others are made meanwhile.
    monkeypatch.setattr(cache_module, "decode", decode)
    assert ended(views, add(bucket, "small.tif")).layers is not None
    go_on.set()
    assert done is not None
    done.result(60)
    assert views.state_of(source).layers is not None
    assert seen == [False, True]


def test_a_bug_leaves_the_others(views: ViewCache, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **kwargs: Any) -> dict[str, Any]:
        raise RuntimeError("bug")

    replaced(monkeypatch, broken)
    assert "can't be prepared" in str(ended(views, add(bucket)).problem)
    replaced(monkeypatch, decode)
    for number in range(4):  # more than there are threads
        assert ended(views, add(bucket, f"{number}.tif")).layers is not None


def test_an_object_that_is_gone_is_told(views: ViewCache) -> None:
    problem = ended(views, ViewSource("make_image", "uploads/gone.tif", "gone.tif")).problem
    assert "gone.tif: is no longer in the bucket" in str(problem)


def test_an_object_of_another_bucket_is_fetched_and_removed(tmp_path: Path, bucket: Path) -> None:
    add(bucket)
    storage = Storage("memory://")
    storage.upload_file(bucket / "uploads" / "a.tif", "uploads/a.tif")
    views = ViewCache(tmp_path / "views", storage)
    source = ViewSource("make_image", "uploads/a.tif", "a.tif")
    state = ended(views, source)
    assert state.layers is not None
    assert sorted(path.name for path in state.folder.iterdir()) == [
        "facts.json", "image.index", "image.tif", "thumbnail.png", "view.json",
    ]  # fmt: skip


def test_an_unavailable_bucket_is_tried_again(views: ViewCache, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Path:
        raise StorageUnavailable("the bucket is unavailable")

    source = add(bucket)
    with monkeypatch.context() as patch:
        patch.setattr(ViewCache, "_fetch", away)
        assert isinstance(ended(views, source).problem, ConsumerError)
    now = cache_module._now()
    monkeypatch.setattr(cache_module, "_now", lambda: now + 31)
    assert ended(views, source).layers is not None


def test_a_child_that_crashes_is_an_error_of_the_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    (tmp_path / "view").mkdir()
    request = {"path": str(tmp_path / "a.tif"), "folder": str(tmp_path / "view"), "name": "a.tif", "order": ""}
    known = set(_children())

    def kill() -> None:
        while not (new := set(_children()) - known):
            pass
        os.kill(new.pop(), signal.SIGSEGV)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(InvalidImage, match=r"a\.tif: the process that reads it crashed \(killed by SIGSEGV\)"):
        decode("make_image", {**request, "field": "", "is_whole": True, "max_bytes": 1}, DecoderLimits(), name="a.tif")
    killer.join()


def _children() -> list[int]:
    import multiprocessing

    return [process.pid for process in multiprocessing.active_children() if process.pid is not None]
