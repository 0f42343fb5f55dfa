"""What a consumer that asks a model server adds to `Consumer`: download, predict, save, upload."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from redis_consumer.consumers import defaults, detect
from redis_consumer.consumers.base import Consumer, Outcome
from redis_consumer.consumers.predict import ModelClient, batch_size, keep_predictions, plan_tiling
from redis_consumer.consumers.results import write_result, zip_name
from redis_consumer.errors import InvalidImage, InvalidJob, ModelMismatch, SettingsError
from redis_consumer.job import Job, ModelId
from redis_consumer.storage.keys import output_key

if TYPE_CHECKING:
    from redis_consumer.models import ModelStore
    from redis_consumer.queue import Leftover
    from redis_consumer.serving.base import Array, ModelServer


class TensorFlowServingConsumer(Consumer):
    """Base of the consumers that send images to a model. A plug-in implements `_consume` and calls these methods.

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
        self.predict_retries = self._zips = 0
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

    @property
    def _redis_hash(self) -> str | None:
        return self.job.id if self.job else None

    @property
    def _redis_values(self) -> dict[str, str]:
        return dict(self.job.fields) if self.job else {}

    def run(self, job: Job) -> Outcome:
        """Run a claimed job and settle it, see `Consumer.run`."""
        self.predict_retries = self._zips = 0
        return super().run(job)

    def prepare(self) -> None:
        """Open the model server, so that a wrong address stops the start; nothing connects yet."""
        super().prepare()
        _ = self.model_server

    def check_dependencies(self) -> None:
        """Raise where Redis, the bucket or the model server doesn't answer now."""
        super().check_dependencies()
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
        return ModelClient(self.model_server, ModelId.of(model_name, model_version), on_retry=self._note_retry)

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
        outputs = self._predict_batch(np.asarray(img)[np.newaxis], ModelId.of(model_name, model_version))
        return outputs[0] if len(outputs) == 1 else outputs

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
        from redis_consumer.processing.tiles import plan_cuts, run_plan

        image = np.asarray(img)
        batch = image[np.newaxis] if image.ndim == 3 else image
        model = ModelId.of(model_name, model_version)
        card = self.models.card(model)
        plan = plan_cuts(
            (batch.shape[1], batch.shape[2]),
            int(cuts),
            int(field),
            multiple_px=card.tile.multiple_px if card and card.tile else 1,
            max_tile_yx=(int(defaults.get("MAX_IMAGE_HEIGHT")), int(defaults.get("MAX_IMAGE_WIDTH"))),
        )
        tiles = batch_size(plan.tile_yx, batch.shape[-1])
        outputs = run_plan(batch, self._tile_function(model), plan, batch_size=tiles)
        if image.ndim == 3:
            outputs = [output[0] for output in outputs]
        return outputs[0] if len(outputs) == 1 else outputs

    # Whole jobs, as the built-in consumers do it.

    def predict(self, image: Array, model: ModelId) -> list[Array]:
        """Run a model over images of any size, in tiles where it wants tiles.

        Args:
            image: (B, Y, X, C) float32.
            model: which model.

        Returns:
            The model's predictions in the order of their names, each (B, Y, X, channels).

        Raises:
            ModelMismatch: the model takes another number of channels, or doesn't answer in pixels.
            ModelNotFound, ModelServerUnavailable: as `ModelServer.predict`.
        """
        tiling = plan_tiling(self.model_server, self.models, model, image.shape, on_retry=self._note_retry)
        return tiling.run(image, self._tile_function(model))

    def _tile_function(self, model: ModelId) -> Callable[[Array], list[Array]]:
        """The function that predicts a batch of tiles; a plug-in's own `grpc_image` is asked tile by tile."""
        if type(self).grpc_image is TensorFlowServingConsumer.grpc_image and "grpc_image" not in self.__dict__:
            return lambda tiles: self._predict_batch(tiles, model)

        def one_by_one(tiles: Array) -> list[Array]:
            replies = [self.grpc_image(tile, model.name, model.version) for tile in tiles]
            lists = [reply if isinstance(reply, list) else [reply] for reply in replies]
            return [np.concatenate(outputs) for outputs in zip(*lists, strict=True)]

        return one_by_one

    def _predict_batch(self, batch: Array, model: ModelId) -> list[Array]:
        client = self._get_predict_client(model.name, model.version)
        return keep_predictions(client.predict([{"data": batch}], float(defaults.get("GRPC_TIMEOUT"))))

    def _note_retry(self, count: int, code: str) -> None:
        self.logger.warning("Model server: try %d failed with %s", count, code)
        self.predict_retries += 1
        if self.job is not None:
            fields = {"status": f"retry-predicting - {count} - {code}", "predict_retries": self.predict_retries}
            self.update_key(self.job.id, fields)

    def detect_scale(self, image: Array) -> float:
        """Ask ``SCALE_DETECT_MODEL`` by which factor an image is to be resized; 1 while detection is off.

        Args:
            image: (Y, X), (Y, X, C), (T, Y, X) or (B, Y, X, C).
        """
        if not defaults.get("SCALE_DETECT_ENABLED"):
            return 1.0
        return detect.scale_of(self._detection_outputs("SCALE", image))

    def get_image_scale(self, scale: float | str | None, image: Array, redis_hash: str) -> float:
        """The scale that a job gives; where it gives none, the detected one, which is written to the job.

        Args:
            scale: the job's field; None or empty to detect it.
            image: as for `detect_scale`.
            redis_hash: the job.

        Raises:
            InvalidJob: it lies outside of ``MIN_SCALE`` to ``MAX_SCALE``. Also a ValueError.
        """
        if scale is None or scale == "":
            scale = self.detect_scale(image)
            self.update_key(redis_hash, {"scale": f"{scale:g}"})
        factor = Job(redis_hash, {"scale": str(scale)}).scale or 1.0
        low, high = float(defaults.get("MIN_SCALE")), float(defaults.get("MAX_SCALE"))
        if not low <= factor <= high:
            raise InvalidJob(
                f"field scale: {factor:g} is out of range; give {low:g} to {high:g} (MIN_SCALE, MAX_SCALE)",
                job_id=redis_hash,
            )
        return factor

    def detect_label(self, image: Array) -> int:
        """Ask ``LABEL_DETECT_MODEL`` what kind of image it is: index into the model choices; 0 while detection is off.

        Args:
            image: as for `detect_scale`.
        """
        if not defaults.get("LABEL_DETECT_ENABLED"):
            return 0
        return detect.label_of(self._detection_outputs("LABEL", image))

    def _detection_outputs(self, kind: str, image: Array) -> Array:
        crops = detect.crops(
            image, int(defaults.get(f"{kind}_RESHAPE_SIZE")), every=int(defaults.get(f"{kind}_DETECT_SAMPLE"))
        )
        predict = self._tile_function(ModelId.parse(str(defaults.get(f"{kind}_DETECT_MODEL"))))
        return np.concatenate([predict(crop[np.newaxis])[0] for crop in crops])

    def get_model_metadata(self, model_name: str, model_version: int | str) -> list[dict[str, str]]:
        """Say which tensors a model takes, in the form of the contract's section 4.4.

        Returns:
            For each input ``in_tensor_name``, ``in_tensor_dtype`` and ``in_tensor_shape``, such as
            ``"-1,256,256,1"`` with -1 for a free size.
        """
        return self._get_predict_client(model_name, model_version).describe_inputs()

    def validate_model_input(
        self, image: Array, model_name: str, model_version: int | str, channels: str | None = None
    ) -> Array:
        """Bring an image into the axes order of a model, or say why it doesn't fit (contract, section 5.4).

        Args:
            image: as many axes as the model's input; the smallest besides the first is taken for the channels.
            model_name: folder name of the model.
            model_version: its version; 0 or empty for the latest.
            channels: indices of the channels to use, joined by commas; all by default.

        Returns:
            The image with its channels last.

        Raises:
            ModelMismatch: rank or number of channels differ from the model's. Also a ValueError.
            InvalidImage: it is larger than ``MAX_IMAGE_HEIGHT`` x ``MAX_IMAGE_WIDTH``. Also a ValueError.
        """
        (first, *_) = self.get_model_metadata(model_name, model_version)
        sizes = [int(size) for size in first["in_tensor_shape"].split(",")]
        wanted = f"model {model_name}:{model_version} takes {len(sizes)} axes ({first['in_tensor_shape']})"
        if image.ndim != len(sizes):
            raise ModelMismatch(f"image: has {image.ndim} axes {image.shape}, {wanted}; send one of that rank")
        axis = 1 + int(np.argmin(image.shape[1:]))
        image = np.moveaxis(image, axis, -1)
        if channels:
            indices = [int(index) for index in channels.split(",") if index.strip()]
            if any(not 0 <= index < image.shape[-1] for index in indices):
                raise ModelMismatch(f"field channels: {channels!r} names more than the image's {image.shape[-1]}")
            image = image[..., indices]
        if sizes[-1] > 0 and image.shape[-1] != sizes[-1]:
            raise ModelMismatch(f"image: has {image.shape[-1]} channels, {wanted}; name those to use in field channels")
        height, width = image.shape[-3:-1]
        if height > int(defaults.get("MAX_IMAGE_HEIGHT")) or width > int(defaults.get("MAX_IMAGE_WIDTH")):
            raise InvalidImage(
                f"image: {height} x {width} pixels is more than MAX_IMAGE_HEIGHT and MAX_IMAGE_WIDTH allow"
            )
        return image

    def download_image(self, path: str) -> Array:
        """Download an image and read it as `utils.get_image` does."""
        from redis_consumer.images import get_image

        with tempfile.TemporaryDirectory(prefix="redis-consumer-") as folder:
            return get_image(self.storage.download(path, folder))

    def save_output(self, image: Array | Sequence[Array], save_name: str) -> tuple[str, str]:
        """Write an image's channels as TIFF files, zip and upload them; return key and URL of the zip.

        Args:
            image: an array, or a list of them whose channels are numbered onward, see `write_channels`.
            save_name: name of the files, with folders; what can't be part of one is left out.
        """
        from redis_consumer.archives import zip_files

        arrays = [image] if isinstance(image, np.ndarray) else image
        with tempfile.TemporaryDirectory(prefix="redis-consumer-") as folder:
            files = write_result(arrays, Path(folder), save_name)
            return self._upload_zip(zip_files(files, folder, name=self._next_zip_name()))

    def _next_zip_name(self) -> str | None:
        """Name for a zip of the running job, None for any where none runs."""
        if self.job is None:
            return None
        name = zip_name(self.job, self._zips)
        self._zips += 1
        return name

    def _upload_zip(self, path: str) -> tuple[str, str]:
        key, url = self.storage.upload(path)
        return str(key), str(url)

    def discard(self, leftover: Leftover) -> None:
        """Remove the zips that one run has uploaded, but never the visible one."""
        if not hasattr(self.storage, "delete"):
            return
        keys = (output_key(zip_name(leftover.job, number)) for number in count())
        # The first one last: where it is gone, so are the others.
        for key in reversed(list(takewhile(self.storage.exists, keys))):
            if key != leftover.visible:
                self.storage.delete(key)
                self.logger.info("Deleted %s, which attempt %d left", key, leftover.job.attempt)


class UnavailableConsumer(TensorFlowServingConsumer):
    """A kind of consumer that this version doesn't have: it refuses to start.

    Attributes:
        kind: its consumer type.
        instead: what to do instead.
    """

    kind: str
    instead: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        raise SettingsError(f"CONSUMER_TYPE={self.kind}: not available in this version; {self.instead}")

    def _consume(self, redis_hash: str) -> str:
        raise SettingsError(f"job {redis_hash}: consumer type {self.kind} is not available in this version")
