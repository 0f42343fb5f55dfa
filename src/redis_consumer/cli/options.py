"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from redis_consumer.settings import Settings

Queue = Annotated[str | None, typer.Option("--queue", "-q", help="Queue; overrides QUEUE.", metavar="NAME")]
Queues = Annotated[
    list[str] | None,
    typer.Option(
        "--queue",
        "-q",
        help="Queue, together with its -zip queue; repeatable. Default: QUEUE and SEGMENTATION_QUEUE.",
        metavar="NAME",
    ),
]
JobQueue = Annotated[
    str | None,
    typer.Option("--queue", "-q", help="Queue of the jobs. Default: read from their keys.", metavar="NAME"),
]
Redis = Annotated[
    str | None,
    typer.Option(
        "--redis",
        help="Redis or its Sentinel, by HOST:PORT or URL; instead of REDIS_URL and REDIS_HOST.",
        metavar="ADDRESS",
    ),
]
Bucket = Annotated[
    str | None, typer.Option("--bucket", help="Bucket, e.g. s3://name; overrides STORAGE_BUCKET.", metavar="URL")
]
ModelServer = Annotated[
    str | None,
    typer.Option("--model-server", help="Model server, e.g. tfs://host:8500; overrides MODEL_SERVER.", metavar="URL"),
]
DimensionOrder = Annotated[
    str | None, typer.Option("--dimension-order", help="Axes of the image, e.g. XYB or CXY.", metavar="AXES")
]
Postprocess = Annotated[
    str | None, typer.Option("--postprocess", help="Post-processing, e.g. deep_watershed.", metavar="NAMES")
]
Outputs = Annotated[
    str | None, typer.Option("--outputs", help="More files in the result, e.g. rois,table or all.", metavar="NAMES")
]
Json = Annotated[bool, typer.Option("--json", help="Print data for scripts: one JSON document on standard output.")]


def chosen_queues(settings: Settings, named: Sequence[str] | None, *, is_exact: bool = False) -> list[str]:
    """Return the queues to read: the named ones, else those of the settings, each with its ``-zip`` queue.

    Args:
        settings: the settings in use.
        named: names of queues, in upper or lower case.
        is_exact: use only the named queues, without their ``-zip`` queues.
    """
    names = [name.lower() for name in named or (settings.queue, settings.segmentation_queue)]
    pairs = [(name,) if name.endswith("-zip") or (named and is_exact) else (name, f"{name}-zip") for name in names]
    return list(dict.fromkeys(name for pair in pairs for name in pair))
