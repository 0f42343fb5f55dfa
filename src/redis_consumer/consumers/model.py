"""Runs models for a consumer: clients, images whole and in tiles, progress and retries written to the job."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from redis_consumer.consumers import defaults
from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.predict import ModelClient, keep_predictions, model_of, request_of, stacked, with_batch
from redis_consumer.consumers.tiling import Tiling, measured_call, tiling_of
from redis_consumer.errors import ConsumerError
from redis_consumer.job import ModelId

if TYPE_CHECKING:
    from redis_consumer.models import Card, ModelStore
    from redis_consumer.processing.tiled import Planned
    from redis_consumer.serving.base import Array, ModelServer, OnRetry


class ModelConsumer(Consumer):
    """What a `TensorFlowServingConsumer` does with its model server.

    Args:
        redis_client: as for `Consumer`.
        storage_client: as for `Consumer`.
        queue: as for `Consumer`.
        final_status: as for `Consumer`.
        model_server: where models are served; the one that the settings name by default.
        models: where model files and cards are found; bucket, then package by default.
        kwargs: passed on to `Consumer`.
    """

    def __init__(
        self,
        redis_client: Any,
        storage_client: Any,
        queue: str,
        final_status: str = "done",
        *,
        model_server: ModelServer | None = None,
        models: ModelStore | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(redis_client, storage_client, queue, final_status, **kwargs)
        #: Bytes that one call of a model takes in this process, by its name and version; those that were measured.
        self.call_bytes: dict[str, int] = {}
        self._is_by_card = False
        self._looked_at: set[ModelId] = set()
        if model_server is not None:
            self.model_server = model_server
        if models is not None:
            self.models = models

    @cached_property
    def models(self) -> ModelStore:
        """Model files and cards."""
        has_files = all(hasattr(self.storage, name) for name in ("exists", "download_file", "list_folders"))
        return defaults.model_store(self.storage if has_files else None)

    @cached_property
    def model_server(self) -> ModelServer:
        """The model server, opened when first asked for."""
        return defaults.model_server(self.models)

    def prepare(self) -> None:
        """Open the model server, so that a wrong address stops the start; nothing connects yet."""
        super().prepare()
        _ = self.model_server

    def _warm_up(self) -> None:
        """Ask for the models that the settings name, so that they are loaded and their metadata known."""
        names = str(defaults.get("WARM_UP"))
        try:
            if names:
                # First whether it answers at all: to wait for it is for the jobs.
                self.model_server.check()
            for name in filter(None, names.split(",")):
                model = ModelId.parse(name)
                self.model_server.metadata(model)
                self._measure_call(model)
        except ConsumerError as error:
            self.logger.warning("WARM_UP=%s: %s", names, error)

    def _measure_call(self, model: ModelId) -> None:
        """Make a call of a model that runs in this process, to know what calls take."""
        shape = self._tiling(model).call_shape() if hasattr(self.model_server, "release") else None
        if shape is None:
            return
        self._rest()
        self._ask_server(model, np.zeros(shape, np.float32), self._note_retry)
        self.logger.info("Model %s: one call takes %d MB", model, self.call_bytes[str(model)] / 1e6)
        self._rest()

    def _rest(self) -> None:
        """Give back memory that the last jobs needed, that of models in this process too."""
        release = getattr(self.__dict__.get("model_server"), "release", None)
        if release is not None:
            release()
        super()._rest()

    def _check_dependencies(self) -> None:
        """Raise where Redis, the bucket or the model server doesn't answer now."""
        super()._check_dependencies()
        self.model_server.check()

    def close(self) -> None:
        """Give back the model server's connections and memory and the cached models, if they were ever asked for."""
        for part in ("model_server", "models"):
            if part in self.__dict__:
                self.__dict__[part].close()
        super().close()

    # One image at a time, as plug-ins do it.

    def _get_predict_client(self, model_name: str, model_version: int | str) -> ModelClient:
        """Make a client for one model.

        Raises:
            InvalidJob: the version is no whole number. Also a ValueError.
        """
        model = ModelId.numbered(model_name, model_version)
        self._note_model(model)
        return ModelClient(self.model_server, model, on_retry=self._note_retry)

    def grpc_image(self, img: Array, model_name: str, model_version: int | str) -> Array | list[Array]:
        """Send one image to a model (contract, section 4.3).

        Args:
            img: the image without batch axis, usually (Y, X, C).
            model_name: folder name of the model.
            model_version: its version; 0 or empty for the latest.

        Returns:
            The model's prediction with a leading batch axis of 1; a list of them, in the order of their names, where
            the model has several.

        Raises:
            ModelNotFound, ModelMismatch, ModelServerUnavailable: as `ModelServer.predict`.
        """
        client = self._get_predict_client(model_name, model_version)
        request = request_of(client, model_name, np.asarray(img)[np.newaxis])
        outputs = keep_predictions(client.predict(request, float(defaults.get("GRPC_TIMEOUT"))))
        return outputs[0] if len(outputs) == 1 else outputs

    def predict_batch(self, items: Array | Sequence[Array], model: ModelId | str) -> list[Array]:
        """Run a model on many items of one size, such as the crops of cells; it may answer with anything for each.

        Args:
            items: (N, Y, X, C), or a list of N (Y, X, C), N at least 1; sent in batches as tiles are.
            model: which model; also as a text, ``name:version``.

        Returns:
            The model's predictions in the order of their names, N items each.

        Raises:
            ModelNotFound, ModelMismatch, ModelServerUnavailable: as `ModelServer.predict`.
            ValueError: items of a list differ in size, or there are none.
            InvalidJob, TypeError: the model's text, or what is given for it, names none.
        """
        from redis_consumer.serving.batches import predict_in_batches

        model, array = model_of(model), stacked(items)
        self._warn_of_card(model)
        client = self._get_predict_client(model.name, model.label or model.version)
        size = self._tiling(model).batch_size(array.shape[1:-1], array)

        def ask(inputs: Mapping[str, Array]) -> list[Array]:
            return keep_predictions(client.predict(request_of(client, model.name, inputs["items"])))

        return predict_in_batches(ask, {"items": array}, size)

    def process_big_image(
        self, cuts: int | str, img: Array, field: int | str, model_name: str, model_version: int | str
    ) -> Array | list[Array]:
        """Send an image to a model in ``cuts x cuts`` pieces that overlap by half of the receptive field.

        Args:
            cuts: pieces a side.
            img: the image, (Y, X, C) or with a leading batch axis.
            field: receptive field of the model in pixels; pieces are larger where the model's card wants multiples of
                a size.
            model_name: folder name of the model.
            model_version: its version; 0 or empty for the latest.

        Returns:
            As `grpc_image`, at the size of the image; without batch axis where `img` has none.

        Raises:
            InvalidJob: more pieces than pixels, a field that is far larger than the image, or pieces beyond
                ``MAX_IMAGE_HEIGHT`` x ``MAX_IMAGE_WIDTH``. Also a ValueError.
        """
        image = np.asarray(img)
        model = ModelId.of(model_name, model_version)
        if self._has_own_client:
            # The model server isn't asked: a plug-in's own `grpc_image` may know models that it doesn't.
            card = self.models.card(model)
            tiling = Tiling(model, card=card.tile if card else None)
        else:
            tiling = self._tiling(model)
        batch = image[np.newaxis] if image.ndim == 3 else image
        outputs = self._run_one(tiling, tiling.planned_cuts(batch, int(cuts), int(field)))
        if image.ndim == 3:
            outputs = [output[0] for output in outputs]
        return outputs[0] if len(outputs) == 1 else outputs

    # Whole jobs, as the built-in consumers do it.

    @overload
    def predict(self, image: Array, model: ModelId | str) -> list[Array]: ...

    @overload
    def predict(self, image: Array, model: str, model_version: int | str) -> Array | list[Array]: ...

    @overload
    def predict(self, image: Array, *, model_name: str, model_version: int | str) -> Array | list[Array]: ...

    def predict(
        self,
        image: Array,
        model: ModelId | str = "",
        model_version: int | str | None = None,
        *,
        model_name: str = "",
    ) -> Array | list[Array]:
        """Run a model over images of any size, in tiles where it wants tiles, and report the job's progress.

        Neither scale nor the functions of the model's card are applied; `ImageFileConsumer.segment` applies both.

        Args:
            image: (B, Y, X, C) float32; for a model of volumes (Z, Y, X, C) or (B, Z, Y, X, C).
            model: which model; also as a text, ``name:version``.
            model_version: in calls of the form of 2020, ``predict(image, name, version)``; the image may also be
                (Y, X, C) then.
            model_name: the name in such a call.

        Returns:
            The model's predictions in the order of their names, each (B, Y, X, channels). In a call of the form of
            2020 the prediction itself, and a list only where there are several.

        Raises:
            ModelMismatch: the model takes another number of channels, or doesn't answer in pixels.
            ModelNotFound, ModelServerUnavailable: as `ModelServer.predict`.
            JobCancelled, LeaseLost: as `update_key`; calls that are under way are given up.
        """
        if model_version is not None or model_name:
            outputs = self._predict_all(with_batch(image), ModelId.of(str(model_name or model), model_version or 0))
            return outputs[0] if len(outputs) == 1 else outputs
        return self._predict_all(np.asarray(image), model_of(model))

    def _predict_all(self, image: Array, model: ModelId) -> list[Array]:
        self._warn_of_card(model)
        tiling = self._tiling(model)
        outputs = self._run_one(tiling, tiling.planned(image))
        return [output.reshape(*image.shape[:-1], output.shape[-1]) for output in outputs]

    def predict_each(self, images: Iterable[Array], model: ModelId | str) -> Generator[list[Array], None, None]:
        """Run a model over many images, such as the blocks of a large one, without a pause of the server between them.

        Args:
            images: as for `predict`, each of any size; taken in another thread, and some ahead of the results.
            model: as for `predict`.

        Yields:
            What `predict` returns for each of `images`; volumes with their batch axis. Close the iterator
            (``contextlib.closing``) where it may be left before its end.

        Raises:
            ModelMismatch, ModelNotFound, ModelServerUnavailable: as `predict`.
        """
        model = model_of(model)
        self._warn_of_card(model)
        tiling = self._tiling(model)
        yield from self._run_tiles(tiling, map(tiling.planned, images))

    @contextlib.contextmanager
    def _by_card(self) -> Iterator[None]:
        """Within the block, models are called with what their cards say."""
        before, self._is_by_card = self._is_by_card, True
        try:
            yield
        finally:
            self._is_by_card = before

    def _warn_of_card(self, model: ModelId) -> None:
        """Warn once if a model is called without the functions and the pixel size of its card."""
        if self._is_by_card or model in self._looked_at:
            return
        self._looked_at.add(model)
        card = self.models.card(model)
        names = ("preprocess", "postprocess", "pixel_size_um")
        skipped = [name for name in names if card is not None and getattr(card, name)]
        if skipped:
            self.logger.warning(
                "Model %s is called without what its card says (%s); call self.segment(image, job, model=%r) to run it "
                "with them",
                model,
                ", ".join(skipped),
                str(model),
            )

    def _tiling(self, model: ModelId) -> Tiling:
        return tiling_of(self.model_server, self.models, model, on_retry=self._note_retry)

    def _note_model(self, model: ModelId) -> None:
        if self._claimed is not None:
            self._claimed.note_model(str(model), partial(self._describe_model, model))

    def _describe_model(self, model: ModelId) -> dict[str, Any]:
        """What is known of a model that was asked, for the record of the result."""
        from redis_consumer.serving.base import identify

        found: dict[str, Any] = {"version_served": None, "sha256": None, "digest_of": "unknown: asked by own code"}
        try:
            if not self._has_own_client:
                identity = identify(self.model_server, model)
                found = {"version_served": identity.version, "sha256": identity.sha256, "digest_of": identity.digest_of}
            card = self.models.card(model)
        except ConsumerError as error:
            # Its message may hold an address; everyone who can read a result can read its record.
            unknown = {"digest_of": f"unknown: {type(error).__name__}"} if found["sha256"] is None else {}
            return {**found, "card": None, **unknown}
        return {**found, "card": None if card is None else _as_data(card)}

    def _run_one(self, tiling: Tiling, planned: Planned) -> list[Array]:
        part, parts = (0, 1) if self._claimed is None else self._claimed.part
        tiles = planned.tiles
        (outputs,) = self._run_tiles(
            tiling, [planned], lambda done: self.report_progress(part * tiles + done, parts * tiles)
        )
        return outputs

    def _run_tiles(
        self, tiling: Tiling, images: Iterable[Planned], on_tiles: Callable[[int], None] | None = None
    ) -> Iterator[list[Array]]:
        """Run a model over planned images, see `redis_consumer.processing.tiled.run_each`."""
        from redis_consumer.processing.tiled import run_each

        model = tiling.model
        self._note_model(model)
        if self._has_own_client:
            # It takes one image, and may not be fit for several threads.
            one_by_one = (replace(planned, batch_size=1) for planned in images)
            return run_each(one_by_one, tiling.adapted(lambda tiles: self._ask(tiles[0], model)), on_tiles=on_tiles)
        ask = partial(self._ask_server, model)
        return tiling.run(images, ask, on_retry=self._note_retry, on_tiles=on_tiles)

    @property
    def _has_own_client(self) -> bool:
        """Whether a plug-in has replaced what sends an image to the model."""
        methods = ("grpc_image", "_get_predict_client")
        return any(
            name in self.__dict__ or getattr(type(self), name) is not getattr(ModelConsumer, name) for name in methods
        )

    def _ask(self, image: Array, model: ModelId) -> list[Array]:
        """Run a model on one image without batch axis, by a plug-in's own method where there is one."""
        self._note_model(model)
        if not self._has_own_client:
            return self._ask_server(model, image[np.newaxis], self._note_retry)
        reply = self.grpc_image(image, model.name, model.label or model.version)
        return reply if isinstance(reply, list) else [reply]

    def _ask_server(self, model: ModelId, batch: Array, on_retry: OnRetry) -> list[Array]:
        def ask() -> list[Array]:
            return keep_predictions(ModelClient(self.model_server, model, on_retry=on_retry).predict([{"data": batch}]))

        if str(model) in self.call_bytes or not hasattr(self.model_server, "release"):
            return ask()
        outputs, grown = measured_call(ask, self._tiling(model), batch)
        self.call_bytes[str(model)] = grown
        return outputs

    def _note_retry(self, count: int, code: str) -> None:
        self.logger.warning("Model server: try %d failed with %s", count, code)
        if self._claimed is not None:
            self._claimed.retries += 1
            fields = {"status": f"retry-predicting - {count} - {code}", "predict_retries": self._claimed.retries}
            self.update_key(self._claimed.job.id, fields)


def _as_data(card: Card) -> dict[str, Any]:
    """What a card says of how images go through its model."""
    tile = None if card.tile is None else asdict(card.tile)
    return {"pixel_size_um": card.pixel_size_um, "tile": tile}
