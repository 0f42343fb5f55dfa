"""The steps of a consumer with a model server: download, detect, predict, save, upload."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from redis_consumer.consumers import defaults, detect
from redis_consumer.consumers.frames import Frames
from redis_consumer.consumers.model import ModelConsumer
from redis_consumer.consumers.model_input import dimension_orders, fit_inputs, inputs_of_metadata, spec_of
from redis_consumer.consumers.predict import ModelClient, described_inputs, model_of
from redis_consumer.consumers.results import discard_zips, write_result
from redis_consumer.consumers.tiling import Tiling, tiling_by
from redis_consumer.errors import InvalidJob
from redis_consumer.job import Job, ModelId

if TYPE_CHECKING:
    from redis_consumer.grpc_clients import GrpcModelWrapper
    from redis_consumer.job import OrphanedResult
    from redis_consumer.serving.base import Array


class TensorFlowServingConsumer(ModelConsumer):
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

    def is_valid_hash(self, redis_hash: str | None) -> bool:
        """Say whether this consumer can work on a job, see `Consumer.is_valid_hash`."""
        return redis_hash is not None

    def detect_scale(self, image: Array | Frames) -> float:
        """Ask ``SCALE_DETECT_MODEL`` by which factor an image is to be resized; 1 while detection is off.

        Args:
            image: (Y, X), (Y, X, C), (T, Y, X) or (B, Y, X, C); or frames that are read in groups.
        """
        if not defaults.get("SCALE_DETECT_ENABLED"):
            return 1.0
        return detect.scale_of(self._detection_outputs("SCALE", image))

    def get_image_scale(self, scale: float | str | None, image: Array | Frames, redis_hash: str) -> float:
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

    def detect_label(self, image: Array | Frames) -> int:
        """Ask ``LABEL_DETECT_MODEL`` what kind of image it is: index into the model choices; 0 while detection is off.

        Args:
            image: as for `detect_scale`.
        """
        if not defaults.get("LABEL_DETECT_ENABLED"):
            return 0
        return detect.label_of(self._detection_outputs("LABEL", image))

    def _detection_outputs(self, kind: str, image: Array | Frames) -> Array:
        crops = detect.crops_of(
            image.parts() if isinstance(image, Frames) else [image],
            int(defaults.get(f"{kind}_RESHAPE_SIZE")),
            every=int(defaults.get(f"{kind}_DETECT_SAMPLE")),
        )
        model = ModelId.parse(str(defaults.get(f"{kind}_DETECT_MODEL")))
        return np.concatenate([self._ask(crop, model)[0] for crop in crops])

    def get_model_metadata(self, model_name: str, model_version: int | str) -> list[dict[str, str]]:
        """Say which tensors a model takes, in the form of the contract's section 4.4.

        Returns:
            For each input ``in_tensor_name``, ``in_tensor_dtype`` and ``in_tensor_shape``, such as
            ``"-1,256,256,1"`` with -1 for a free size.
        """
        client = self._get_predict_client(model_name, model_version)

        def usual() -> ModelClient:
            model = ModelId.of(model_name, model_version)
            return ModelClient(self.model_server, model, on_retry=self._note_retry)

        return described_inputs(client, usual)

    def _tiling(self, model: ModelId) -> Tiling:
        if not self._has_own_metadata:
            return super()._tiling(model)
        spec = spec_of(self.get_model_metadata(model.name, model.label or model.version))
        return tiling_by(spec, self.models, model)

    @property
    def _has_own_metadata(self) -> bool:
        """Whether a plug-in describes its model's inputs itself; the model server may not know the model."""
        names = ("get_model_metadata", "_get_predict_client")
        own = (name in self.__dict__ for name in names)
        return any(own) or any(
            getattr(type(self), name) is not getattr(TensorFlowServingConsumer, name) for name in names
        )

    def parse_model_metadata(self, metadata: Mapping[str, Any]) -> list[dict[str, str]]:
        """Read a model's inputs out of its metadata, in the form of `get_model_metadata`.

        Args:
            metadata: TensorFlow Serving's reply in protobuf's JSON form, or the object ``inputs`` in it.

        Raises:
            KeyError: it is neither of them.
        """
        return inputs_of_metadata(metadata)

    def detect_dimension_order(
        self, image: Array | Sequence[Array], model_name: str, model_version: int | str
    ) -> list[str]:
        """Say in which order the axes of an image are, such as ``["YXC"]`` or ``["CYX"]``; ``Z`` for volumes.

        Args:
            image: with or without its batch axis; a list with one for each input of the model. The smallest axis is
                taken for the channels.
            model_name: folder name of the model.
            model_version: its version; 0 or empty for the latest.

        Raises:
            ModelMismatch: the rank differs from the model's. Also a ValueError.
        """
        inputs = self.get_model_metadata(model_name, model_version)
        return dimension_orders(image, inputs, f"model {model_name}:{model_version}")

    def get_model_wrapper(self, model: ModelId | str, batch_size: int | None = None) -> GrpcModelWrapper:
        """Give a served model the looks of a Keras one.

        Args:
            model: which model, ``name:version``.
            batch_size: items a call; by default what the settings and the model's size make of it.
        """
        from redis_consumer.grpc_clients import GrpcModelWrapper

        wanted = model_of(model)
        version = wanted.label or wanted.version
        inputs = self.get_model_metadata(wanted.name, version)
        return GrpcModelWrapper(self._get_predict_client(wanted.name, version), inputs, batch_size)

    def get_grpc_app(self, model: ModelId | str, application_cls: Callable[..., Any], **kwargs: Any) -> Any:
        """Make an application, such as one of ``settings.APPLICATION_CHOICES``, that runs a served model.

        Args:
            model: which model, ``name:version``.
            application_cls: takes the model as its first argument.
            kwargs: its other arguments.
        """
        return application_cls(self.get_model_wrapper(model), **kwargs)

    @overload
    def validate_model_input(
        self, image: Array, model_name: str, model_version: int | str, channels: Any = None
    ) -> Array: ...

    @overload
    def validate_model_input(
        self,
        image: Sequence[Array],
        model_name: str,
        model_version: int | str,
        channels: Any = None,
    ) -> list[Array]: ...

    def validate_model_input(
        self,
        image: Array | Sequence[Array],
        model_name: str,
        model_version: int | str,
        channels: Any = None,
    ) -> Array | list[Array]:
        """Bring an image into the axes order of a model, or say why it doesn't fit (contract, section 5.4).

        Args:
            image: as many axes as the model's input; the smallest besides the first is taken for the channels. A list
                with one for each input, where the model has several.
            model_name: folder name of the model.
            model_version: its version; 0 or empty for the latest.
            channels: indices of the channels to use, joined by commas or as a list; a list of such for several images;
                all by default.

        Returns:
            The image with its channels last; a list of them where a list was given.

        Raises:
            ModelMismatch: rank or number of channels differ from the model's. Also a ValueError.
            InvalidImage: it is larger than ``MAX_IMAGE_HEIGHT`` x ``MAX_IMAGE_WIDTH``. Also a ValueError.
        """
        inputs = self.get_model_metadata(model_name, model_version)
        return fit_inputs(image, inputs, f"model {model_name}:{model_version}", channels)

    def download_image(self, path: str) -> Array:
        """Download an image and read it as the consumers of 2023 did: no axis is added for the channels of a TIFF.

        Returns:
            float32. TIFF, NPY: the file's array; other formats: (Y, X, C), where C is 1 for grey.
        """
        from redis_consumer.images import read_as_stored

        with tempfile.TemporaryDirectory(prefix="redis-consumer-") as folder:
            return read_as_stored(self.storage.download(path, folder))

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
        return None if self._claimed is None else self._claimed.next_zip_name()

    def _upload_zip(self, path: str) -> tuple[str, str]:
        return self.provenance.upload(path)

    def discard(self, orphan: OrphanedResult) -> None:
        """Remove the zips that one run has uploaded, but never the visible one."""
        for key in discard_zips(self.storage, orphan):
            self.logger.info("Deleted %s, which attempt %d left", key, orphan.job.attempt)
