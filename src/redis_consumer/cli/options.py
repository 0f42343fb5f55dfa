"""Which options do several commands share?"""

from __future__ import annotations

from typing import Annotated

import typer

Queue = Annotated[str | None, typer.Option("--queue", "-q", help="Queue, instead of QUEUE.", metavar="NAME")]
Queues = Annotated[
    list[str] | None,
    typer.Option(
        "--queue",
        "-q",
        help="Queue, with that of its archives; repeatable. QUEUE and SEGMENTATION_QUEUE if left out.",
        metavar="NAME",
    ),
]
JobQueue = Annotated[
    str | None,
    typer.Option("--queue", "-q", help="Queue of the jobs; read from their keys if left out.", metavar="NAME"),
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
    str | None, typer.Option("--bucket", help="Bucket, instead of STORAGE_BUCKET, e.g. s3://name.", metavar="URL")
]
ModelServer = Annotated[
    str | None,
    typer.Option("--model-server", help="Model server, instead of MODEL_SERVER, e.g. tfs://host:8500.", metavar="URL"),
]
Json = Annotated[bool, typer.Option("--json", help="Write data for scripts: one JSON document on standard output.")]
