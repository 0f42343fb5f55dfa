"""Links the label images of a movie to tracks with a lineage, and reads and writes them.

Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis_consumer.tracking.challenge import write_challenge
    from redis_consumer.tracking.lineage import Track, to_json
    from redis_consumer.tracking.linking import Linker, LinkOptions, link_movie
    from redis_consumer.tracking.preview import write_preview
    from redis_consumer.tracking.table import write_table
    from redis_consumer.tracking.track_file import read_track_file, write_track_file
    from redis_consumer.tracking.tracks import Tracking

__all__ = [
    "LinkOptions",
    "Linker",
    "Track",
    "Tracking",
    "link_movie",
    "read_track_file",
    "to_json",
    "write_challenge",
    "write_preview",
    "write_table",
    "write_track_file",
]

_PLACES = {
    "LinkOptions": "linking",
    "Linker": "linking",
    "Track": "lineage",
    "Tracking": "tracks",
    "link_movie": "linking",
    "read_track_file": "track_file",
    "to_json": "lineage",
    "write_challenge": "challenge",
    "write_preview": "preview",
    "write_table": "table",
    "write_track_file": "track_file",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
