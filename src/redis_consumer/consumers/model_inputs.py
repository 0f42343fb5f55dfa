"""Describes the inputs of models, and fits images to them, for consumers with a model server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from redis_consumer.consumers import defaults
from redis_consumer.job import ModelId
from redis_consumer.segmentation.model_client import ModelClient, described_inputs
from redis_consumer.segmentation.model_input import dimension_orders, fit_inputs, inputs_of_metadata
from redis_consumer.segmentation.predictor import model_of
from redis_consumer.serving.base import Array

if TYPE_CHECKING:
    from redis_consumer.grpc_clients import GrpcModelWrapper


class ModelInputs:
    """The part of `TensorFlowServingConsumer` about the inputs of a model."""

    def _get_predict_client(self, model_name: str, model_version: int | str) -> ModelClient:
        raise NotImplementedError

    def _client(self, model: ModelId) -> ModelClient:
        raise NotImplementedError

    def get_model_metadata(self, model_name: str, model_version: int | str) -> list[dict[str, str]]:
        """Describe the input tensors of a model, in the form of the contract's section 4.4.

        Returns:
            For each input ``in_tensor_name``, ``in_tensor_dtype`` and ``in_tensor_shape``, such as
            ``"-1,256,256,1"`` with -1 for a free size.
        """
        client = self._get_predict_client(model_name, model_version)
        return described_inputs(client, lambda: self._client(ModelId.of(model_name, model_version)))

    def parse_model_metadata(self, metadata: Mapping[str, Any]) -> list[dict[str, str]]:
        """Read a model's inputs from its metadata, in the form of `get_model_metadata`.

        Args:
            metadata: TensorFlow Serving's reply in protobuf's JSON form, or the object ``inputs`` in it.

        Raises:
            KeyError: it has neither form.
        """
        return inputs_of_metadata(metadata)

    def detect_dimension_order(
        self, image: Array | Sequence[Array], model_name: str, model_version: int | str
    ) -> list[str]:
        """Return the order of an image's axes, such as ``["YXC"]`` or ``["CYX"]``; ``Z`` for volumes.

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
        """Wrap a served model so that it can be used like a Keras model.

        Args:
            model: which model, ``name:version``.
            batch_size: items per call; the default is computed from the settings and the model's size.
        """
        from redis_consumer.grpc_clients import GrpcModelWrapper

        wanted = model_of(model)
        version = wanted.label or wanted.version
        inputs = self.get_model_metadata(wanted.name, version)
        return GrpcModelWrapper(self._get_predict_client(wanted.name, version), inputs, batch_size)

    def get_grpc_app(self, model: ModelId | str, application_cls: Callable[..., Any], **kwargs: Any) -> Any:
        """Create an application, such as one of ``settings.APPLICATION_CHOICES``, that runs a served model.

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
        """Change an image to the axes order of a model, or raise an error if it doesn't fit (contract, section 5.4).

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
        inputs, now = self.get_model_metadata(model_name, model_version), defaults.current()
        return fit_inputs(
            image, inputs, f"model {model_name}:{model_version}", channels, (now.max_image_height, now.max_image_width)
        )
