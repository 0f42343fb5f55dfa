"""Defines the bodies of requests and replies of API v1."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from redis_consumer.web.problems import ProblemReply as ProblemReply

Status = Literal["new", "running", "waiting", "cancelling", "done", "failed", "cancelled", "expired"]
Name = Annotated[str, Field(max_length=255)]
#: A value of an option: JSON as people write it in forms.
Value = str | int | float | bool | list[str | int | float | bool] | None
Options = Annotated[dict[Annotated[str, Field(max_length=200)], Value], Field(max_length=200)]
Outputs = Annotated[list[Annotated[str, Field(max_length=50)]], Field(max_length=50)]
Pixel = Annotated[int, Field(ge=0, le=1 << 24)]
Side = Annotated[int, Field(ge=1, le=1 << 24)]


class Body(BaseModel):
    """A request. Unknown names are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Region(Body):
    """A rectangle of an image in pixels; the corner of the image is (0, 0)."""

    x: Pixel
    y: Pixel
    width: Side
    height: Side


class NewJob(Body):
    """A job to create, for an upload or for the key of an object in the bucket."""

    upload: Name = ""
    key: Annotated[str, Field(max_length=1024)] = ""
    kind: Name = ""
    model: Name = ""
    options: Options = {}
    outputs: Outputs = []
    region: Region | None = None


class Changes(Body):
    """What changes when a job runs again; the rest is as before. An option of null is left out."""

    kind: Name = ""
    model: Name | None = None
    options: Options = {}
    outputs: Outputs | None = None
    region: Region | None = None


class Place(BaseModel):
    """Place of a waiting job in its queue. `place` is null beyond 10,000."""

    name: str
    place: int | None
    waiting: int
    seconds_left: int | None
    sentence: str


class Trouble(BaseModel):
    """Why a job has failed."""

    title: str
    detail: str
    field: str
    hint: str


class Reading(BaseModel):
    """How the image was read."""

    axes_read: str
    channels_read: str
    scale: str
    scale_from: str
    object_diameter_px: str


class Times(BaseModel):
    """Moments of a job, ISO 8601; null before they come."""

    created: str | None
    started: str | None
    finished: str | None


class Input(BaseModel):
    """The input of a job."""

    upload: str
    name: str


class ResultFile(BaseModel):
    """The zip of a result."""

    url: str
    name: str
    size: int | None
    expires: str | None


class File(BaseModel):
    """A file that can be downloaded; some are made at the first request."""

    name: str
    kind: str
    url: str


class JobReply(BaseModel):
    """A job."""

    id: str
    status: Status
    kind: str
    model: str
    stage: str
    progress: float
    queue: Place | None
    attempt: int
    problem: Trouble | None
    warning: str
    objects: int | None
    quality: str
    read: Reading
    times: Times
    input: Input
    options: dict[str, str]
    outputs: list[str]
    region: Region | None
    result: ResultFile | None
    files: list[File]
    batch: str
    again_of: str
    owner: str
    version: int


class JobPage(BaseModel):
    """A page of jobs, the latest first; `next` is the cursor of the next page, empty on the last one."""

    items: list[JobReply]
    next: str


class NewBatch(Body):
    """A batch to create: one job for each upload, all with the same settings."""

    name: Name
    uploads: Annotated[list[Name], Field(min_length=1, max_length=10_000)]
    kind: Name = ""
    model: Name = ""
    options: Options = {}
    outputs: Outputs = []


class Counts(BaseModel):
    """Jobs of a batch by status. Expired ones count as done."""

    waiting: int
    running: int
    done: int
    failed: int
    cancelled: int


class BatchReply(BaseModel):
    """A batch."""

    id: str
    name: str
    counts: Counts
    objects: int
    seconds_left: int | None
    times: Times
    kind: str
    model: str
    options: dict[str, str]
    outputs: list[str]
    owner: str


class BatchPage(BaseModel):
    """The batches of a user, the latest first."""

    items: list[BatchReply]


class Role(BaseModel):
    """What a channel shows for a kind of job."""

    name: str
    title: str
    required: bool


class KindReply(BaseModel):
    """A kind of job. `options_schema` is a JSON Schema from which a form can be made."""

    name: str
    title: str
    description: str
    queue: str
    served: bool
    options_schema: dict[str, Any]
    outputs: list[str]
    roles: list[Role]


class ModelReply(BaseModel):
    """A model with its card."""

    name: str
    version: int
    title: str
    pixel_size_um: float | None
    object_diameter_px: float | None
    roles: list[str]
    licence: str
    packaged: bool


class QueueReply(BaseModel):
    """A queue, and why its jobs wait."""

    name: str
    waiting: int
    running: int
    oldest_s: float | None
    per_minute: float
    workers: int
    sentence: str
    cause: str
    what_to_do: str
    level: Literal["ok", "warn", "bad"]


class SlotReply(BaseModel):
    """A job that a worker runs."""

    job: str
    stage: str
    for_s: float


class WorkerReply(BaseModel):
    """A worker that is alive."""

    name: str
    slots: list[SlotReply]
    waits_for: str
    memory_mb: int
    queue: str
    since: str


class DeadReply(JobReply):
    """A dead letter."""

    dead_since: str | None


class Limits(BaseModel):
    """Limits of a user; 0 for none."""

    waiting_jobs: int
    upload_bytes: int


class UserReply(BaseModel):
    """Who sends the requests."""

    name: str
    role: Literal["user", "operator"]
    login: Literal["none", "token", "proxy"]
    limits: Limits
    kiosk_api: bool


class Column(BaseModel):
    """A column of a table; `unit` is empty for none."""

    name: str
    unit: str


class ObjectsReply(BaseModel):
    """The table of objects. `rows` has at most 200,000 of the `total` rows."""

    columns: list[Column]
    rows: list[list[float | int | None]]
    total: int


Label = Annotated[int, Field(ge=1, le=1 << 24)]
Frame = Annotated[int, Field(ge=0, le=1_000_000)]
Point = Annotated[list[Pixel], Field(min_length=2, max_length=2)]
Run = Annotated[list[Pixel], Field(min_length=3, max_length=3)]


class Delete(Body):
    """Deletes an object in all frames."""

    op: Literal["delete"]
    label: Label


class Merge(Body):
    """Gives the second object the label of the first one, in all frames."""

    op: Literal["merge"]
    labels: Annotated[list[Label], Field(min_length=2, max_length=2)]


class Split(Body):
    """Splits an object of a frame. Each point, row and column, is in one part; the second part gets a new label."""

    op: Literal["split"]
    label: Label
    points: Annotated[list[Point], Field(min_length=2, max_length=2)]
    t: Frame = 0
    z: Frame = 0


class Paint(Body):
    """Writes a label, 0 for background, into runs of pixels of a frame: row, first column, last column plus one."""

    op: Literal["paint"]
    label: Annotated[int, Field(ge=0, le=1 << 24)]
    t: Frame = 0
    z: Frame = 0
    runs: Annotated[list[Run], Field(min_length=1, max_length=100_000)]


class Corrections(Body):
    """Corrections of the labels of version `base`, in order."""

    base: Annotated[int, Field(ge=0, le=1_000_000)]
    ops: Annotated[
        list[Annotated[Delete | Merge | Split | Paint, Field(discriminator="op")]], Field(min_length=1, max_length=1000)
    ]
