"""Estimates how likely two cells are the same, with the model in ``TRACKING_MODEL`` (contract, section 5.7).

There are two kinds of such models, which their metadata distinguish: one that takes eight inputs of a pair of cells,
and one that takes embeddings, which a second model (``NEIGHBORHOOD_ENCODER``) makes of all cells of a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from redis_consumer.errors import ModelMismatch
from redis_consumer.job import ModelId
from redis_consumer.movies.movie import Movie
from redis_consumer.options import LinkingModelOptions
from redis_consumer.serving.base import Array
from redis_consumer.tracking.features import Cells, adjacency, describe, neighborhood
from redis_consumer.tracking.learned import Place, link_learned
from redis_consumer.tracking.tracks import Tracking

Ask = Callable[[ModelId, Mapping[str, Any]], dict[str, Any]]
"""Asks a model server: model and inputs by name; gives outputs by name."""

_EMBEDDED = {"current_embeddings", "current_centroids", "future_embeddings", "future_centroids"}
_PAIRED = {f"input{number}" for number in range(8)}
#: Frames in one call of the encoder.
_ENCODED_FRAMES = 64


def link_by_model(
    model: ModelId,
    names: set[str],
    ask: Ask,
    movie: Movie,
    labels: Callable[[int], Array],
    options: LinkingModelOptions,
) -> Tracking:
    """Link the cells of a movie by a model.

    Args:
        model: which one.
        names: names of its inputs.
        ask: the model server.
        movie: the images.
        labels: returns the label image of a frame.
        options: what it is given.

    Raises:
        ModelMismatch: it is not a linking model.
        ModelNotFound, ModelServerUnavailable: as `ModelServer.predict`.
    """
    kind: type[_Paired | _Embedded] | None = _Paired if names == _PAIRED else _Embedded if names == _EMBEDDED else None
    if kind is None:
        raise ModelMismatch(
            f"model {model}: takes {', '.join(sorted(names))[:200]}, which is no linking model; correct "
            "TRACKING_MODEL, or leave it unset to link cells without a model",
            model=str(model),
        )
    described = [kind.describe(movie.read(number), labels(number), options) for number in range(len(movie))]
    score = kind(model, ask, movie, described, options)
    return link_learned(described, score, options.tracks, clean_up=kind is _Embedded)


class _Embedded:
    """The kind of model that takes embeddings."""

    def __init__(
        self,
        model: ModelId,
        ask: Ask,
        movie: Movie,  # noqa: ARG002
        frames: Sequence[Cells],
        options: LinkingModelOptions,
    ) -> None:
        self.model = model
        self.ask = ask
        self.frames = frames
        self.options = options
        self.embeddings = self._encode()

    @staticmethod
    def describe(image: Array, labels: Array, options: LinkingModelOptions) -> Cells:
        """See `redis_consumer.tracking.features.describe`."""
        return describe(
            labels,
            image,
            side_px=options.picture_px,
            is_fixed=options.is_picture_fixed,
            normalize=options.is_picture_normalized,
        )

    def __call__(self, histories: Sequence[Sequence[Place]], frame: int) -> Array:
        """See `redis_consumer.tracking.learned.Score`."""
        by_time = [list(places) for places in zip(*histories, strict=True)]
        cells = self.frames[frame]
        inputs = {
            "current_embeddings": [[self.embeddings[at][index] for at, index in places] for places in by_time],
            "current_centroids": [[self.frames[at].centroids_px[index] for at, index in places] for places in by_time],
            "future_embeddings": [self.embeddings[frame][: len(cells)]],
            "future_centroids": [cells.centroids_px],
        }
        outputs = self.ask(self.model, {name: np.array([rows], np.float32) for name, rows in inputs.items()})
        (answer,) = outputs.values()
        wanted = (len(histories), len(cells), 3)
        return _shaped(answer, wanted, self.model)

    def _encode(self) -> list[Array]:
        encoder = ModelId.parse(self.options.encoder)
        most = max((len(cells) for cells in self.frames), default=0)
        embeddings: list[Array] = []
        for start in range(0, len(self.frames), _ENCODED_FRAMES):
            frames = self.frames[start : start + _ENCODED_FRAMES]
            outputs = self.ask(encoder, _encoder_inputs(frames, most, self.options.max_distance_px))
            if len(outputs) < 2:
                raise ModelMismatch(
                    f"model {encoder}: gives {len(outputs)} output, wanted two; correct NEIGHBORHOOD_ENCODER",
                    model=str(encoder),
                )
            embeddings += list(outputs[sorted(outputs)[1]])
        return embeddings


def _encoder_inputs(frames: Sequence[Cells], most: int, reach_px: float) -> dict[str, Array]:
    """Return the inputs of the encoder. Frames with fewer cells than the largest one are filled with zeros."""
    parts = {
        "encoder_app_input": [cells.appearances for cells in frames],
        "encoder_morph_input": [cells.morphologies for cells in frames],
        "encoder_centroid_input": [cells.centroids_px for cells in frames],
    }
    inputs = {
        name: np.stack([np.pad(rows, [(0, most - len(rows)), *[(0, 0)] * (rows.ndim - 1)]) for rows in each])
        for name, each in parts.items()
    }
    links = [adjacency(cells.centroids_px, reach_px) for cells in frames]
    inputs["encoder_adj_input"] = np.stack([np.pad(link, (0, most - len(link))) for link in links])
    return inputs


class _Paired:
    """The kind of model that takes one track and one cell."""

    def __init__(
        self, model: ModelId, ask: Ask, movie: Movie, frames: Sequence[Cells], options: LinkingModelOptions
    ) -> None:
        self.model = model
        self.ask = ask
        self.movie = movie
        self.frames = frames
        self.options = options
        self.surroundings = [self._surroundings(number, cells.centroids_px) for number, cells in enumerate(frames)]

    @staticmethod
    def describe(image: Array, labels: Array, options: LinkingModelOptions) -> Cells:
        """See `redis_consumer.tracking.features.describe`."""
        return describe(labels, _prepared(image, options), side_px=options.picture_px)

    def __call__(self, histories: Sequence[Sequence[Place]], frame: int) -> Array:
        """See `redis_consumer.tracking.learned.Score`."""
        cells = self.frames[frame]
        last = np.array([self.frames[at].centroids_px[index] for *_, (at, index) in histories])
        away = cells.centroids_px[np.newaxis] - last[:, np.newaxis]
        near = np.argwhere(np.hypot(away[..., 0], away[..., 1]) <= self.options.max_distance_px)
        ahead = self._surroundings(frame, last)
        pasts = [self._past(places) for places in histories]
        answer = np.full((len(histories), len(cells), 3), np.nan)
        size = self.options.max_pairs
        for start in range(0, len(near), size):
            pairs = near[start : start + size]
            inputs: dict[str, Array] = {}
            for number in range(4):
                inputs[f"input{2 * number}"] = np.stack([pasts[track][number] for track, _ in pairs])
            tracks, candidates = pairs.T
            inputs["input1"] = cells.appearances[candidates][:, np.newaxis]
            inputs["input3"] = away[tracks, candidates][:, np.newaxis]
            inputs["input5"] = ahead[tracks][:, np.newaxis]
            inputs["input7"] = cells.morphologies[candidates][:, np.newaxis]
            (chances,) = self.ask(self.model, inputs).values()
            answer[tracks, candidates] = _shaped(chances, (len(pairs), 3), self.model)
        return answer

    def _past(self, places: Sequence[Place]) -> tuple[Array, Array, Array, Array]:
        """Return appearance, distance, neighbourhood and shape of a track in its last frames."""
        centroids = np.array([self.frames[at].centroids_px[index] for at, index in places])
        return (
            np.stack([self.frames[at].appearances[index] for at, index in places]),
            np.diff(centroids, axis=0, prepend=centroids[:1]),
            np.stack([self.surroundings[at][index] for at, index in places]),
            np.stack([self.frames[at].morphologies[index] for at, index in places]),
        )

    def _surroundings(self, frame: int, places: Array) -> Array:
        side_px = 2 * self.options.surroundings_px + 1
        image = _prepared(self.movie.read(frame), self.options)
        cuts = [neighborhood(image, place, side_px) for place in places]
        return np.array(cuts, np.float32).reshape(-1, side_px, side_px, 1)


def _prepared(image: Array, options: LinkingModelOptions) -> Array:
    if not options.is_frame_normalized:
        return image
    normal: Array = (image - image.mean()) / (image.std() or 1)
    return normal


def _shaped(answer: Array, wanted: tuple[int, ...], model: ModelId) -> Array:
    if answer.size != int(np.prod(wanted)):
        raise ModelMismatch(
            f"model {model}: answered in shape {answer.shape}, wanted {wanted}; correct TRACKING_MODEL",
            model=str(model),
        )
    return answer.reshape(wanted).astype(np.float64)
