"""Runs models over images of any size: cuts tiles, sends them in batches, and joins the outputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from redis_consumer.errors import ConsumerError
from redis_consumer.job import ModelId
from redis_consumer.models import ModelStore
from redis_consumer.options import TilingOptions
from redis_consumer.processing.tiled import Planned, Predict, run_each
from redis_consumer.segmentation.model_input import spec_of
from redis_consumer.segmentation.tiling import Tiling, measured_call, only_input, tiling_of
from redis_consumer.serving.base import Array, ModelServer, OnRetry, identify
from redis_consumer.wanted import OrderedPool

logger = logging.getLogger(__name__)


@dataclass
class PredictorState:
    """State that is kept between calls of models and between jobs.

    Attributes:
        call_bytes: measured bytes of one call in this process, by name and version of the model.
        warned: models for which a call without their cards was logged.
        is_by_card: whether models are currently called with the values of their cards.
        part: number of the current part of the job's image, from 0, and the number of parts, for the progress.
    """

    call_bytes: dict[str, int] = field(default_factory=dict)
    warned: set[ModelId] = field(default_factory=set)
    is_by_card: bool = False
    part: tuple[int, int] = (0, 1)

    @contextmanager
    def by_card(self) -> Iterator[None]:
        """Call models with the values of their cards within the block."""
        before, self.is_by_card = self.is_by_card, True
        try:
            yield
        finally:
            self.is_by_card = before


@dataclass(frozen=True)
class Predictor:
    """Runs models over images for one job.

    Attributes:
        models: source of the cards.
        server: the model server.
        options: sizes of tiles and calls.
        state: state that is kept longer than this object.
        on_model: called with each model before its first call.
        on_retry: called before each repeated call, in the caller's thread.
        report: called with the number of finished tiles, and of all.
        ask_one: a plug-in's own method that sends one image to a model. It can know models that the server doesn't
            have, and may not be thread-safe.
        describe: a plug-in's own method that describes the inputs of a model.
    """

    models: ModelStore
    server: ModelServer
    options: TilingOptions
    state: PredictorState = field(default_factory=PredictorState)
    on_model: Callable[[ModelId], None] = lambda _: None
    on_retry: OnRetry = lambda *_: None
    report: Callable[[int, int], None] = lambda *_: None
    ask_one: Callable[[Array, str, Any], Array | list[Array]] | None = None
    describe: Callable[[str, Any], list[dict[str, str]]] | None = None

    def predict(self, image: Array, model: ModelId) -> list[Array]:
        """Run a model over images.

        Args:
            image: (B, Y, X, C); for a model of volumes (Z, Y, X, C) or (B, Z, Y, X, C).
            model: which model.

        Returns:
            The predictions in the order of their names. Each has the shape of `image`, with other channels.

        Raises:
            ModelMismatch: the model takes another number of channels, or its output has no pixels.
            ModelNotFound, ModelServerUnavailable: as `ModelServer.predict`.
        """
        self.warn_of_card(model)
        tiling = self.tiling(model)
        planned = tiling.planned(image)
        with self._calls(tiling) as run:
            (outputs,) = run([planned], on_tiles=partial(self._report, planned.tiles))
        return [output.reshape(*image.shape[:-1], output.shape[-1]) for output in outputs]

    def predict_each(self, images: Iterable[Array], model: ModelId) -> Generator[list[Array], None, None]:
        """Run a model over many images, so that the server doesn't wait between them.

        Args:
            images: the images. They are taken in another thread, some in advance.
            model: which model.

        Yields:
            The result of `predict` for each of `images`; volumes with their batch axis.
        """
        self.warn_of_card(model)
        tiling = self.tiling(model)
        with self._calls(tiling) as run:
            yield from run(map(tiling.planned, images))

    def predict_cut(self, cuts: int, batch: Array, field_px: int, model: ModelId) -> list[Array]:
        """Run a model over images (B, Y, X, C) in ``cuts x cuts`` pieces, for older jobs.

        Args:
            cuts: pieces per side.
            batch: the images.
            field_px: receptive field of the model.
            model: which model.

        Raises:
            InvalidJob: as `Tiling.planned_cuts`.
        """
        # The model server isn't asked about a model that only a plug-in's own method may know.
        tiling = self.tiling(model) if self.ask_one is None else self._tiling_by_card(model)
        planned = tiling.planned_cuts(batch, cuts, field_px)
        with self._calls(tiling) as run:
            (outputs,) = run([planned], on_tiles=partial(self._report, planned.tiles))
        return outputs

    def ask(self, batch: Array, model: ModelId) -> list[Array]:
        """Make one call. If a plug-in has its own method, `batch` has one image."""
        self.on_model(model)
        return self._ask(model, batch, self.on_retry)

    def tiling(self, model: ModelId) -> Tiling:
        """Return how images are tiled for a model.

        Raises:
            ModelMismatch: it takes no images.
            ModelNotFound, ModelServerUnavailable: as `ModelServer.metadata`.
        """
        if self.describe is None:
            spec = self.server.metadata(model, on_retry=self.on_retry)
        else:
            spec = spec_of(self.describe(model.name, model.label or model.version))
        return tiling_of(spec, self.models.card(model), model, self.options)

    def call_bytes_of(self, model: ModelId, shape: tuple[int, int, int, int], *, is_known: bool = True) -> int:
        """Return the bytes that one call of a model takes, measured, or estimated from its metadata.

        Args:
            model: which one.
            shape: (B, Y, X, C) of the images for it.
            is_known: whether the model server has the model.
        """
        if str(model) in self.state.call_bytes:
            return self.state.call_bytes[str(model)]
        if not is_known or self.ask_one is not None:
            return self._tiling_by_card(model).estimated_call_bytes(shape, is_in_process=False)
        return self.tiling(model).estimated_call_bytes(shape, is_in_process=self.is_in_process)

    def measure(self, model: ModelId) -> int | None:
        """Call a model that runs in this process, and return the bytes that calls take; None for other models."""
        shape = self.tiling(model).call_shape() if self.is_in_process else None
        if shape is None:
            return None
        self._ask(model, np.zeros(shape, np.float32), self.on_retry)
        return self.state.call_bytes[str(model)]

    def warn_of_card(self, model: ModelId) -> None:
        """Warn once if a model is called without the functions and the pixel size of its card."""
        if self.state.is_by_card or model in self.state.warned:
            return
        self.state.warned.add(model)
        card = self.models.card(model)
        names = ("preprocess", "postprocess", "pixel_size_um")
        skipped = [name for name in names if card is not None and getattr(card, name)]
        if skipped:
            logger.warning(
                "Model %s is called without what its card says (%s); call self.segment(image, job, model=%r) to run it "
                "with them",
                model,
                ", ".join(skipped),
                str(model),
            )

    def describe_model(self, model: ModelId) -> dict[str, Any]:
        """Describe a model that was called, for the record of the result."""
        found: dict[str, Any] = {"version_served": None, "sha256": None, "digest_of": "unknown: asked by own code"}
        try:
            if self.ask_one is None:
                identity = identify(self.server, model)
                found = {"version_served": identity.version, "sha256": identity.sha256, "digest_of": identity.digest_of}
            card = self.models.card(model)
        except ConsumerError as error:
            # Its message can contain an address, and everyone who can read a result can read its record.
            unknown = {"digest_of": f"unknown: {type(error).__name__}"} if found["sha256"] is None else {}
            return {**found, "card": None, **unknown}
        if card is None:
            return {**found, "card": None}
        tile = None if card.tile is None else asdict(card.tile)
        return {**found, "card": {"pixel_size_um": card.pixel_size_um, "tile": tile}}

    @property
    def is_in_process(self) -> bool:
        """Whether the models run in this process."""
        return hasattr(self.server, "release")

    def _tiling_by_card(self, model: ModelId) -> Tiling:
        card = self.models.card(model)
        return Tiling(model, card=card.tile if card else None, options=self.options)

    @contextmanager
    def _calls(self, tiling: Tiling) -> Iterator[Callable[..., Iterator[list[Array]]]]:
        """Yield what runs the model over planned images, see `run_each`: with several calls in flight at once."""
        model = tiling.model
        self.on_model(model)
        if self.ask_one is not None:
            predict = tiling.adapted(lambda tiles: self._ask(model, tiles, self.on_retry))
            yield partial(_run_one_by_one, predict)
            return
        with OrderedPool(self.options.calls_in_flight, is_detached=True) as pool:

            def tell(count: int, code: str) -> None:
                pool.tell(partial(self.on_retry, count, code))

            predict = tiling.adapted(tiling.filled(lambda tiles: self._ask(model, tiles, tell)))
            yield partial(run_each, predict=predict, map_batches=pool.map)

    def _ask(self, model: ModelId, batch: Array, on_retry: OnRetry) -> list[Array]:
        if self.ask_one is not None:
            reply = self.ask_one(batch[0], model.name, model.label or model.version)
            return reply if isinstance(reply, list) else [reply]

        def call() -> list[Array]:
            spec = self.server.metadata(model, on_retry=on_retry)
            name = only_input(spec, model, self.options.input_name).name
            return keep_predictions(self.server.predict(model, {name: batch}, on_retry=on_retry))

        if str(model) in self.state.call_bytes or not self.is_in_process:
            return call()
        outputs, grown = measured_call(call, self.tiling(model), batch)
        self.state.call_bytes[str(model)] = grown
        return outputs

    def _report(self, tiles: int, done: int) -> None:
        part, parts = self.state.part
        self.report(part * tiles + done, parts * tiles)


def keep_predictions(outputs: Mapping[str, Array]) -> list[Array]:
    """Return the outputs called ``prediction…``, sorted by name; all if none is called so (section 4.3)."""
    return [outputs[name] for name in kept_names(outputs)]


def kept_names(names: Iterable[str]) -> list[str]:
    """Return the names of the outputs that `keep_predictions` returns, in the same order."""
    ordered = sorted(names)
    return [name for name in ordered if name.startswith("prediction")] or ordered


def _run_one_by_one(
    predict: Predict, images: Iterable[Planned], *, on_tiles: Callable[[int], None] | None = None
) -> Iterator[list[Array]]:
    return run_each((replace(planned, batch_size=1) for planned in images), predict, on_tiles=on_tiles)


def model_of(model: ModelId | str) -> ModelId:
    """Return the model that an author's code names.

    Raises:
        TypeError: it is something else.
        InvalidJob: as `ModelId.parse`.
    """
    if isinstance(model, str):
        return ModelId.parse(model)
    if not isinstance(model, ModelId):
        raise TypeError(f"model: {model!r} is a {type(model).__name__}; give a ModelId, or a text such as 'Nuclei:1'")
    return model


def stacked(items: Array | Sequence[Array]) -> Array:
    """Stack items of one size along the first axis of an array.

    Raises:
        ValueError: they differ in size, or there are none.
    """
    if isinstance(items, np.ndarray):
        return items
    arrays = [np.asarray(item) for item in items]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) != 1:
        told = f"they have shapes {', '.join(map(str, shapes[:5]))}" if shapes else "there are none"
        raise ValueError(f"items: {told}; give at least one, and all in one size")
    return np.stack(arrays)


def as_batches(results: Any) -> Any:
    """Return results of the methods of 2020, an image or a list of images, with their batch axes."""
    return with_batch(results) if isinstance(results, np.ndarray) else [with_batch(each) for each in results]


def with_batch(image: Any) -> Any:
    """Return an image (Y, X, C) with a leading batch axis of 1. An image with a batch axis is unchanged."""
    array = np.asarray(image)
    return array[np.newaxis] if array.ndim == 3 else array
