"""Links the label images of a movie to tracks with a lineage, and reads and writes them.

This module only re-exports names.
"""

from redis_consumer.options import LinkOptions
from redis_consumer.tracking.challenge import write_challenge
from redis_consumer.tracking.linking import Linker, link_movie
from redis_consumer.tracking.preview import write_preview
from redis_consumer.tracking.table import write_table
from redis_consumer.tracking.track_file import read_track_file, write_track_file
from redis_consumer.tracking.tracks import Track, Tracking, to_json

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
