"""Describes the parts of a fleet and their capacities."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Bucket:
    """What a bucket allows.

    The numbers of requests are those with which Google Cloud Storage starts a bucket, before it has spread it over more
    servers, which takes minutes (https://cloud.google.com/storage/docs/request-rate). The others are assumed.

    Attributes:
        reads_per_s: requests.
        writes_per_s: requests.
        bytes_per_s: each way, all workers together.
        latency_s: of a request, beside the turn of its bytes.
    """

    reads_per_s: float = 5000.0
    writes_per_s: float = 1000.0
    bytes_per_s: float = 25e9 / 8
    latency_s: float = 0.04


@dataclass(frozen=True)
class Autoscaler:
    """What adds and removes workers, by the number of jobs that wait or run.

    Attributes:
        jobs_per_worker: of these.
        interval_s: between two looks.
        delay_s: until a worker that was asked for takes its first job.
        least: workers that stay.
    """

    jobs_per_worker: int = 50
    interval_s: float = 15.0
    delay_s: float = 120.0
    least: int = 1


@dataclass(frozen=True)
class Fleet:
    """What runs.

    Attributes:
        workers: how many; with an autoscaler at most.
        slots: of each worker, ``CONCURRENCY``.
        cores: of each worker.
        memory_bytes: of each worker.
        gpus: which take the calls of a common line, one call each.
        tile_s: time of a GPU for a tile.
        call_s: time of a GPU for a call, whatever its tiles.
        calls_in_flight: of one image.
        trip_s: way to Redis or model server and back.
        bucket: None for a local one, whose time is in the samples.
        is_one_machine: workers, Redis and model server share the cores of one machine.
        autoscaler: None for workers that are all there from the start.
    """

    workers: int = 1
    slots: int = 1
    cores: float = 2.0
    memory_bytes: int = 4 << 30
    gpus: int = 1
    tile_s: float = 0.02
    call_s: float = 0.002
    calls_in_flight: int = 4
    trip_s: float = 0.0005
    bucket: Bucket | None = field(default_factory=Bucket)
    is_one_machine: bool = False
    autoscaler: Autoscaler | None = None
