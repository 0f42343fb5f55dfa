"""Which lineages hold."""

from __future__ import annotations

import json

import pytest

from redis_consumer.errors import InvalidImage
from redis_consumer.tracking.tracks import Track, check, to_json

BROKEN = {
    "one label twice": ([Track(1, (0,)), Track(1, (1,))], "two tracks have the same label"),
    "no frame": ([Track(1, ())], "must list its frames"),
    "falling frames": ([Track(1, (2, 1))], "must list its frames"),
    "a negative frame": ([Track(1, (-1, 1))], "must list its frames"),
    "a daughter that isn't there": ([Track(1, (0,), None, (2,))], "a daughter that doesn't exist"),
    "a daughter of another": ([Track(1, (0,), None, (2,)), Track(2, (1,), 3)], "names another parent"),
    "a parent that isn't there": ([Track(1, (1,), 9)], "names a parent that doesn't exist"),
    "a parent that knows nothing": ([Track(1, (0,)), Track(2, (1,), 1)], "doesn't list it as daughter"),
    "a parent that lives on": ([Track(1, (0, 1), None, (2,)), Track(2, (1,), 1)], "or continues after it begins"),
    "its own parent": ([Track(1, (0,), 1, (1,))], "or continues after it begins"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_lineage_that_can_not_be_is_refused(case: str) -> None:
    tracks, message = BROKEN[case]
    with pytest.raises(InvalidImage, match=message):
        check(tracks)


def test_the_contracts_fields_are_written() -> None:
    tracks = [Track(1, (0, 2), None, (2, 3)), Track(2, (4,), 1), Track(3, (3, 4), 1)]
    check(tracks)
    lineage = json.loads(to_json(tracks))
    assert lineage["1"] == {
        "label": 1,
        "frames": [0, 2],
        "daughters": [2, 3],
        "capped": True,
        "frame_div": 3,
        "parent": None,
    }
    assert (lineage["2"]["capped"], lineage["2"]["frame_div"], lineage["2"]["parent"]) == (False, None, 1)
