"""The modules of the page that compute, in a browser: windows, labels, scale bars, words, states, edits, trees."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser

from support.browser import FOLDER, serve_files

Js = Callable[[str, str], Any]


@pytest.fixture(scope="module")
def js(browser: Browser) -> Iterator[Js]:
    """Evaluates an expression on a module of the page, which it sees as `m`."""
    with serve_files() as address:
        page = browser.new_page()
        page.goto(f"{address}/samples/README.md")
        yield lambda module, text: page.evaluate(f"import('/{module}').then((m) => {text})")
        page.close()


def test_a_window_maps_its_ends_to_black_and_white(js: Js) -> None:
    for kind, values in (("Uint8Array", [0, 10, 60, 110, 255]), ("Uint16Array", [0, 10, 60, 110, 65535])):
        found = js("viewer/compose.js", f"[...m.intensities({kind}.from({values}), {{low: 10, high: 110}})]")
        assert found == [0, 0, 127, 255, 255]
    found = js("viewer/compose.js", "[...m.intensities(Float32Array.of(-1, 0.25, 0.5, 9, NaN), {low: 0, high: 1})]")
    assert found == [0, 63, 127, 255, 0]


def test_channels_are_added_in_their_colours(js: Js) -> None:
    channel = "{{values: Uint8Array.of({}), low: 0, high: 255, color: {}}}"
    two = f"[{channel.format('255, 0', [255, 0, 0])}, {channel.format('255, 255', [255, 0, 255])}]"
    pixels = js("viewer/compose.js", f"[...new Uint8Array(m.paintChannels(new Uint32Array(2), {two}).buffer)]")
    assert pixels == [255, 0, 255, 255, 255, 0, 255, 255]
    one = f"[{channel.format('128, 255', [255, 255, 255])}]"
    pixels = js("viewer/compose.js", f"[...new Uint8Array(m.paintChannels(new Uint32Array(2), {one}).buffer)]")
    assert pixels == [128, 128, 128, 255, 255, 255, 255, 255]


def paint(js: Js, style: str) -> list[bool]:
    """Which pixels of a 5 x 5 tile are coloured; a label of 3 x 3 is in its middle."""
    labels = [7 if 1 <= x <= 3 and 1 <= y <= 3 else 0 for y in range(5) for x in range(5)]
    text = f"""(() => {{ const pixels = new Uint32Array(25).fill(0xff000000);
        const style = {{opacity: 0.5, colors: null, selected: 0, only: null, {style}}};
        m.paintLabels(pixels, Uint32Array.from({labels}), style, 5);
        return [...pixels].map((value) => value !== 0xff000000); }})()"""
    found: list[bool] = js("viewer/compose.js", text)
    return found


def test_labels_are_filled_or_outlined(js: Js) -> None:
    assert sum(paint(js, "fill: true, outline: false")) == 9
    outline = paint(js, "fill: false, outline: true")
    assert sum(outline) == 8
    assert not outline[12]
    assert sum(paint(js, "fill: false, outline: false, selected: 7")) == 8
    assert sum(paint(js, "fill: true, outline: true, only: new Set([6])")) == 0


def test_edits_are_seen_before_they_are_saved(js: Js) -> None:
    strokes = "[{label: 9, t: 0, z: 0, runs: [[2, 4, 6]]}, {label: 8, t: 1, z: 0, runs: [[0, 0, 9]]}]"
    edits = f"{{remap: {{1: 2, 3: 0}}, paint: {strokes}}}"
    place = "{t: 0, z: 0, step: 2, left: 0, top: 0}"
    labels = "Uint32Array.of(1, 3, 5, 1, 0, 0, 1, 0, 0)"
    found = js("viewer/compose.js", f"[...m.withEdits({labels}, {edits}, {place}, 3)]")
    assert found == [2, 0, 5, 2, 0, 9, 2, 0, 0]


def test_auto_contrast_ignores_padding_and_outliers(js: Js) -> None:
    values = "Uint16Array.from({length: 512 * 512}, (_, i) => (i % 512 < 100 ? 1000 + (i % 512) : 0))"
    found = js("viewer/compose.js", f"m.autoWindow({values}, 100, 512, 512, [0.01, 0.99])")
    assert 1000 <= found["low"] <= 1002
    assert 1097 <= found["high"] <= 1099
    flat = js("viewer/compose.js", "m.autoWindow(new Uint8Array(16), 4, 4, 4)")
    assert flat == {"low": 0, "high": 1}


@pytest.mark.parametrize(
    ("zoom", "pixel_size", "text", "pixels"),
    [
        (1, [0.65, 0.65], "50 µm", 76.92), (0.01, [0.65, 0.65], "5 mm", 76.92), (32, [0.1, 0.1], "200 nm", 64.0),
        (1, None, "100 px", 100.0), (20, [0.1, 0.5], "2 µm", 80.0),
    ],
)  # fmt: skip
def test_scale_bars_have_round_numbers(js: Js, zoom: float, pixel_size: Any, text: str, pixels: float) -> None:
    bar = js("viewer/marks.js", f"m.scaleBar({zoom}, {json.dumps(pixel_size)})")
    assert bar["text"] == text
    assert bar["pixels"] == pytest.approx(pixels, rel=1e-3)


def test_neighbouring_labels_have_different_colours(js: Js) -> None:
    colors = js("viewer/colors.js", "[...m.labelColors]")
    assert len(set(colors)) > 300
    parts = [[color >> shift & 255 for shift in (0, 8, 16)] for color in colors]
    for first, second in pairwise(parts[1:]):
        assert sum(abs(a - b) for a, b in zip(first, second, strict=True)) > 60


def test_colours_follow_values(js: Js) -> None:
    found = js("viewer/colors.js", "[...m.colorsByValue([1, 2, 3], [0, 10, NaN], {low: 0, high: 10})]")
    assert [f"{value & 0xFFFFFF:06x}" for value in found] == ["808080", "540144", "25e7fd", "808080"]


def test_numbers_and_times_are_short(js: Js) -> None:
    assert js("words.js", "[0, 999, 1500, 3.1e9].map(m.bytes)") == ["0 B", "999 B", "1.5 kB", "3.1 GB"]
    assert js("words.js", "[0.2, 59, 200, 9000, 400000].map(m.duration)") == ["1 s", "59 s", "3 min", "3 h", "5 days"]
    assert js("words.js", "[12, 1234.5678, 0.000123456, null, 'a'].map(m.number)") == [
        "12",
        "1235",
        "0.0001235",
        "\u2013",
        "a",
    ]
    assert js("words.js", "m.sentences('Done.', '', 'look here', 'a.tif: bad')") == "Done. Look here. a.tif: bad."


def test_columns_and_problems_have_titles(js: Js) -> None:
    channels = "[{name: 'DAPI'}]"
    names = ["area_um2", "c0_mean", "c1_sd", "major_axis_px", "anything_else"]
    assert js("words.js", f"{names}.map((name) => m.columnTitle(name, {channels}))") == [
        "Area (µm²)", "DAPI mean", "Channel 2 sd", "Major axis (px)", "Anything else",
    ]  # fmt: skip
    titles = "['InvalidImage', 'SomethingNew', 'Too large', '']"
    found = js("words.js", f"{titles}.map((title) => m.problemTitle(title, 'No'))")
    assert found == ["This image cannot be processed", "No", "Too large", "No"]


JOB = {
    "status": "new", "progress": 0, "stage": "", "queue": None, "attempt": 1, "problem": None, "warning": "",
    "objects": None, "quality": "",
}  # fmt: skip
PLACE = {"name": "predict", "place": 12, "waiting": 40, "seconds_left": 180, "sentence": "No worker takes jobs."}
FAILED = {"title": "InvalidImage", "detail": "no signal", "field": "channels", "hint": "take another"}
OF_SCALE = {**FAILED, "field": "options.scale"}
NO_IMAGE = "This image cannot be processed"
ALL_TIPS = ["nucleus", "channel", "model", "contrast"]


@pytest.mark.parametrize(
    ("changes", "tone", "title", "tips"),
    [
        ({}, "busy", "Waiting for a worker", None),
        ({"queue": PLACE}, "busy", "Waiting, place 12 of 40", None),
        ({"status": "running", "stage": "predicting"}, "busy", "Running: finding objects", None),
        ({"status": "running", "attempt": 2}, "warn", "Running again (attempt 2): working", None),
        ({"status": "waiting"}, "busy", "Running: its parts are being processed", None),
        ({"status": "cancelling"}, "busy", "Cancelling", None),
        ({"status": "cancelled"}, "quiet", "Cancelled", ["again"]),
        ({"status": "done", "objects": 62, "quality": "0.97"}, "good", "62 objects", None),
        ({"status": "done", "objects": 1, "quality": "0.97"}, "good", "1 object", None),
        ({"status": "done", "objects": 0}, "warn", "0 objects were found", ALL_TIPS),
        ({"status": "done", "objects": 9, "quality": "0.4"}, "warn", "9 objects", ["nucleus", "channel", "model"]),
        ({"status": "expired"}, "warn", "The result has expired", ["again"]),
        ({"status": "failed", "problem": FAILED}, "bad", NO_IMAGE, ["channel", "again"]),
        ({"status": "failed", "problem": OF_SCALE}, "bad", NO_IMAGE, ["nucleus", "again"]),
    ],
)
def test_each_state_says_what_is_and_what_to_do(
    js: Js, changes: Any, tone: str, title: str, tips: list[str] | None
) -> None:
    state = js("states.js", f"m.describeJob({json.dumps({**JOB, **changes})})")
    assert (state["tone"], state["title"], state.get("tips")) == (tone, title, tips)


def test_an_upload_says_how_far_it_is(js: Js) -> None:
    progress = {"sent": 1.2e9, "size": 3e9, "rate": 3e7, "isLost": False}
    state = js("states.js", f"m.describeUpload({json.dumps(progress)})")
    assert (state["title"], state["detail"]) == ("Uploading, 40 %", "1.2 GB of 3.0 GB, 30 MB/s")
    lost = js("states.js", f"m.describeUpload({json.dumps({**progress, 'isLost': True})})")
    assert lost["title"] == "Connection lost at 40 %"


def test_edits_are_joined(js: Js) -> None:
    runs = [[3, 5, 9], [1, 0, 2], [3, 0, 5], [3, 20, 22]]
    assert js("edit.js", f"m.joinRuns({runs})") == [
        [1, 0, 2],
        [3, 0, 9],
        [3, 20, 22],
    ]
    ops = [{"op": "merge", "labels": [1, 2]}, {"op": "merge", "labels": [3, 1]}, {"op": "delete", "label": 3}]
    assert js("edit.js", f"m.preview({json.dumps(ops)}).remap") == {"1": 0, "2": 0, "3": 0}


def test_daughters_are_beside_their_parent_in_the_tree(js: Js) -> None:
    daughters = [[1, []], [2, [4, 5]], [4, []], [5, []]]
    track = "{label, daughters, t: [0], parent: {4: 2, 5: 2}[label] ?? null}"
    tracks = f"new Map({daughters}.map(([label, daughters]) => [label, {track}]))"
    assert js("movie.js", f"[...m.layout({tracks}).keys()]") == [4, 2, 5, 1]


def test_addresses_are_read(js: Js) -> None:
    with_slash = js("api.js", "m.readHash('#/job/predict%3Aa%2Fb%3A1?x=1.5&zoom=2')")
    assert with_slash == {"name": "job", "id": "predict:a/b:1", "query": {"x": "1.5", "zoom": "2"}}
    assert js("api.js", "m.readHash('')") == {"name": "", "id": "", "query": {}}


def test_the_page_is_small_and_needs_only_itself() -> None:
    """What is loaded at first takes at most 60 kB, packed, and no file names another host."""
    first, wanted = set(), ["index.html"]
    while wanted:
        path = FOLDER / wanted.pop()
        if path in first:
            continue
        first.add(path)
        text = path.read_text(encoding="utf-8")
        found = re.findall(r'^import .*?from "(\./[^"]+)"', text, re.MULTILINE) if path.suffix == ".js" else []
        if path.suffix == ".html":
            found = re.findall(r'(?:src|href)="([^":#]+)"', text)
        wanted += [str((path.parent / name).resolve().relative_to(FOLDER.resolve())) for name in found]
    assert len(first) <= 9  # and three calls of the API: me, jobs, batches
    assert sum(len(gzip.compress(path.read_bytes())) for path in first) <= 60_000
    for path in FOLDER.rglob("*"):
        if path.suffix in (".js", ".css", ".html") and path.parent.name != "vendor":
            assert not re.search(r"https?://(?!www\.w3\.org)", path.read_text(encoding="utf-8")), path
