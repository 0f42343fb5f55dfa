"""Defines the bodies of requests and replies for uploads and views."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from redis_consumer.web.v1.shapes import Body


class NewUpload(Body):
    """A file to upload. `direct` asks for a link to the bucket, which clouds have."""

    name: Annotated[str, Field(min_length=1, max_length=2000)]
    size: Annotated[int, Field(ge=0, le=1 << 53)]
    direct: bool = False


class DirectLink(BaseModel):
    """A link to which the file can be sent by one HTTP PUT, without this server."""

    put: str


class NewUploadReply(BaseModel):
    """An upload that has begun. With `direct`, the file goes there and not to `tus`."""

    id: str
    tus: str
    direct: DirectLink | None


class ShortProblem(BaseModel):
    """What is wrong with a job or an upload."""

    title: str
    detail: str
    field: str = ""
    hint: str = ""


class UploadReply(BaseModel):
    """An upload. `facts` describes its image, and is null before it is read."""

    id: str
    name: str
    size: int
    offset: int
    state: Literal["uploading", "reading", "ready", "unreadable"]
    problem: ShortProblem | None
    facts: dict[str, Any] | None


class LevelReply(BaseModel):
    """A level of a view: its sides, and how many tiles it has."""

    width: int
    height: int
    rows: int
    cols: int


class ViewReply(BaseModel):
    """What the page can show of an image and its result. Without `ready`, sides and layers are not known yet."""

    ready: bool
    progress: float
    problem: ShortProblem | None
    version: str
    width: int
    height: int
    tile: int
    t: int
    z: int
    pixel_size_um: list[float] | None
    levels: list[LevelReply]
    layers: list[dict[str, Any]]


class PointsReply(BaseModel):
    """Points of a plane in pixels. `cell` has the label of each, and is empty if no labels are known."""

    y: list[float]
    x: list[float]
    cell: list[float]


class ValueReply(BaseModel):
    """Values at a pixel: of each channel, and of each layer of labels."""

    values: list[float]
    label: int | None = None
    label_2: int | None = None
