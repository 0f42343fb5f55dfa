"""The steps of a consumer with a model server: download, detect, predict, save, upload."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from redis_consumer.archives import zip_files
from redis_consumer.consumers import defaults
from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.model_inputs import ModelInputs
from redis_consumer.errors import ConsumerError, InvalidJob
from redis_consumer.images import read_as_stored
from redis_consumer.job import Job, ModelId, OrphanedResult
from redis_consumer.models import ModelStore
from redis_consumer.segmentation import detection
from redis_consumer.segmentation.frames import Frames
from redis_consumer.segmentation.model_client import ModelClient, request_of
from redis_consumer.segmentation.predictor import (
    Predictor,
    PredictorState,
    keep_predictions,
    model_of,
    stacked,
    with_batch,
)
from redis_consumer.segmentation.results import write_result
from redis_consumer.segmentation.scale import FROM_DEFAULT, FROM_DETECTION
from redis_consumer.serving.base import Array, ModelServer, predict_in_batches
from redis_consumer.storage.keys import discard_zips

#: Methods by which a plug-in sends images to models, and those by which it says which inputs they have.
_CLIENT_METHODS = {"grpc_image", "_get_predict_client"}
_METADATA_METHODS = {"get_model_metadata", "_get_predict_client"}


class TensorFlowServingConsumer(ModelInputs, Consumer):
    """Base of the consumers that call a model. A plug-in implements `_consume` and calls these methods.

    Args:
        redis_client: as for `Consumer`.
        storage_client: as for `Consumer`.
        queue: as for `Consumer`.
        final_status: as for `Consumer`.
        model_server: the model server; the default is that of the settings.
        models: source of model files and cards; the default is the bucket, then the package.
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
        self._predictor_state = PredictorState()
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

    def is_valid_hash(self, redis_hash: str | None) -> bool:
        """Return whether this consumer can process a job, see `Consumer.is_valid_hash`."""
        return redis_hash is not None

    def prepare(self) -> None:
        """Open the model server, so that a wrong address stops the start; nothing connects yet."""
        super().prepare()
        _ = self.model_server

    def _warm_up(self) -> None:
        """Ask for the models that the settings name, so that they are loaded and their metadata known."""
        names = defaults.current().warm_up
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
        self._rest()
        took = self._predictor.measure(model)
        if took is not None:
            self.logger.info("Model %s: one call takes %d MB", model, took / 1e6)
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

    def detect_scale(self, image: Array | Frames) -> float:
        """Detect the scale of an image with ``SCALE_DETECT_MODEL``; 1 if detection is off.

        Args:
            image: (Y, X), (Y, X, C), (T, Y, X) or (B, Y, X, C), or frames that are read in groups.
        """
        options = defaults.scale_detection()
        return detection.scale_of(detection.detect(options, image, self._predictor.ask)) if options.is_enabled else 1.0

    def _detected_scale(self, image: Frames) -> float | None:
        """Detect the scale of an image; None if detection is off."""
        return self.detect_scale(image) if defaults.scale_detection().is_enabled else None

    def get_image_scale(self, scale: float | str | None, image: Array | Frames, redis_hash: str) -> float:
        """Return the scale of a job. If the job has none, detect it and write it to the job.

        Args:
            scale: the job's field; None or empty to detect it.
            image: as for `detect_scale`.
            redis_hash: the job.

        Raises:
            InvalidJob: it is not between ``MIN_SCALE`` and ``MAX_SCALE``. Also a ValueError.
        """
        if scale is None or scale == "":
            scale = self.detect_scale(image)
            is_found = defaults.scale_detection().is_enabled or "detect_scale" in own_methods(self)
            source = FROM_DETECTION if is_found else FROM_DEFAULT
            self.update_key(redis_hash, {"scale": f"{scale:g}", "scale_from": source})
        factor = Job(redis_hash, {"scale": str(scale)}).scale or 1.0
        low, high = defaults.current().min_scale, defaults.current().max_scale
        if not low <= factor <= high:
            raise InvalidJob(
                f"field scale: {factor:g} is out of range; give {low:g} to {high:g} (MIN_SCALE, MAX_SCALE)",
                job_id=redis_hash,
            )
        return factor

    def detect_label(self, image: Array | Frames) -> int:
        """Detect the kind of image with ``LABEL_DETECT_MODEL``, as index into the model choices; 0 if detection is off.

        Args:
            image: as for `detect_scale`.
        """
        options = defaults.label_detection()
        return detection.label_of(detection.detect(options, image, self._predictor.ask)) if options.is_enabled else 0

    # One image at a time, as plug-ins do it.

    def _get_predict_client(self, model_name: str, model_version: int | str) -> ModelClient:
        """Make a client for one model.

        Raises:
            InvalidJob: the version is no whole number. Also a ValueError.
        """
        model = ModelId.numbered(model_name, model_version)
        self._note_model(model)
        return self._client(model)

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
        request = self._request(client, model_name, np.asarray(img)[np.newaxis])
        outputs = keep_predictions(client.predict(request, defaults.current().grpc_timeout))
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
        model, array = model_of(model), stacked(items)
        predictor = self._predictor
        predictor.warn_of_card(model)
        client = self._get_predict_client(model.name, model.label or model.version)
        size = predictor.tiling(model).batch_size(array.shape[1:-1], array)

        def ask(inputs: Mapping[str, Array]) -> list[Array]:
            return keep_predictions(client.predict(self._request(client, model.name, inputs["items"])))

        return predict_in_batches(ask, {"items": array}, size)

    def process_big_image(
        self, cuts: int | str, img: Array, field: int | str, model_name: str, model_version: int | str
    ) -> Array | list[Array]:
        """Send an image to a model in ``cuts x cuts`` pieces that overlap by half of the receptive field.

        Args:
            cuts: pieces per side.
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
        batch = image[np.newaxis] if image.ndim == 3 else image
        outputs = self._predictor.predict_cut(int(cuts), batch, int(field), ModelId.of(model_name, model_version))
        if image.ndim == 3:
            outputs = [output[0] for output in outputs]
        return outputs[0] if len(outputs) == 1 else outputs

    def _client(self, model: ModelId) -> ModelClient:
        name = defaults.current().tf_tensor_name
        return ModelClient(self.model_server, model, on_retry=self._note_retry, input_name=name)

    def _request(self, client: Any, model_name: str, batch: Array) -> list[dict[str, Any]]:
        now = defaults.current()
        return request_of(client, batch, now.tf_tensor_name, "DT_HALF" if "f16" in model_name else now.tf_tensor_dtype)

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
            ModelMismatch: the model takes another number of channels, or its output has no pixels.
            ModelNotFound, ModelServerUnavailable: as `ModelServer.predict`.
            JobCancelled, LeaseLost: as `update_key`; calls that are running are given up.
        """
        is_older = model_version is not None or bool(model_name)
        wanted = ModelId.of(str(model_name or model), model_version or 0) if is_older else model_of(model)
        with self._predicting():
            outputs = self._predictor.predict(with_batch(image) if is_older else np.asarray(image), wanted)
        return outputs[0] if is_older and len(outputs) == 1 else outputs

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
        yield from self._predictor.predict_each(images, model_of(model))

    def download_image(self, path: str) -> Array:
        """Download an image and read it like the consumers of 2023, which added no axis for the channels of a TIFF.

        Returns:
            float32. TIFF, NPY: the file's array; other formats: (Y, X, C), where C is 1 for grey.
        """
        with tempfile.TemporaryDirectory(prefix="redis-consumer-") as folder:
            return read_as_stored(self.storage.download(path, folder))

    def save_output(self, image: Array | Sequence[Array], save_name: str) -> tuple[str, str]:
        """Write an image's channels as TIFF files, zip and upload them, and return key and URL of the zip.

        Args:
            image: an array, or a list of them whose channels are numbered onward, see `write_channels`.
            save_name: name of the files, with folders. Invalid characters are removed.
        """
        arrays = [image] if isinstance(image, np.ndarray) else image
        with tempfile.TemporaryDirectory(prefix="redis-consumer-") as folder:
            files = write_result(arrays, Path(folder), save_name)
            return self._upload_zip(zip_files(files, folder, name=self._next_zip_name()))

    def _next_zip_name(self) -> str | None:
        """Return the name for a zip of the running job; None if no job is running."""
        return None if self._claimed is None else self._claimed.next_zip_name()

    def _upload_zip(self, path: str) -> tuple[str, str]:
        return self.provenance.upload(path)

    def discard(self, orphan: OrphanedResult) -> None:
        """Remove the zips that one run has uploaded, but never the visible one."""
        discard_zips(self.storage, orphan)

    @property
    def _predictor(self) -> Predictor:
        """What runs models for the running job, by the settings of this moment and the methods of a plug-in."""
        own = own_methods(self)
        return Predictor(
            self.models,
            self.model_server,
            defaults.tiling_options(),
            self._predictor_state,
            on_model=self._note_model,
            on_retry=self._note_retry,
            report=self.report_progress,
            ask_one=self.grpc_image if own & _CLIENT_METHODS else None,
            describe=self.get_model_metadata if own & _METADATA_METHODS else None,
        )

    def _predicting(self) -> contextlib.AbstractContextManager[None]:
        """Hold while a model is run over an image."""
        return contextlib.nullcontext()

    def _note_model(self, model: ModelId) -> None:
        if self._claimed is not None:
            self._claimed.note_model(str(model), lambda: self._predictor.describe_model(model))

    def _note_retry(self, count: int, code: str) -> None:
        self.logger.warning("Model server: try %d failed with %s", count, code)
        if self._claimed is not None:
            self._claimed.retries += 1
            fields = {"status": f"retry-predicting - {count} - {code}", "predict_retries": self._claimed.retries}
            self.update_key(self._claimed.job.id, fields)


def own_methods(consumer: Consumer) -> set[str]:
    """Names of the methods that a plug-in has replaced, in its classes or on the instance."""
    classes = (cls for cls in type(consumer).__mro__ if not cls.__module__.startswith(("redis_consumer.", "builtins")))
    return set(vars(consumer)).union(*map(vars, classes))
