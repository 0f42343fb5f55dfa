from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from redis_consumer.errors import InvalidJob, ModelMismatch, ModelNotFound
from redis_consumer.grpc_clients import (
    GrpcClient,
    GrpcModelWrapper,
    PredictClient,
    grpc_response_to_dict,
    make_tensor_proto,
)
from redis_consumer.serving._pb.tfs_pb2 import PredictResponse
from redis_consumer.serving.tfs.tensors import to_tensor

IMAGE = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)


def describe(metadata: dict[str, Any]) -> list[dict[str, str]]:
    """What older consumers make of the metadata."""
    inputs = metadata["metadata"]["signature_def"]["signatureDef"]["serving_default"]["inputs"]
    return [
        {
            "in_tensor_name": name,
            "in_tensor_dtype": entry["dtype"],
            "in_tensor_shape": ",".join(dim["size"] for dim in entry["tensorShape"]["dim"]),
        }
        for name, entry in inputs.items()
    ]


def wrapper(address: str, name: str, **options: Any) -> GrpcModelWrapper:
    client = PredictClient(address, name, 1)
    return GrpcModelWrapper(client, describe(client.get_model_metadata()), **options)


def test_a_channel_is_opened_for_an_address(tf_serving: str) -> None:
    with GrpcClient(tf_serving).insecure_channel() as channel:
        assert callable(channel.unary_unary)


def test_a_prediction_is_asked_for_by_request_data(tf_serving: str) -> None:
    client = PredictClient(tf_serving, "Scaling", "1")
    data = [{"in_tensor_name": "image", "in_tensor_dtype": "DT_FLOAT", "data": IMAGE}]
    outputs = client.predict(data, request_timeout=20)
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * 2, strict=True)


def test_half_floats_are_asked_for_by_their_type(tf_serving: str) -> None:
    data = [{"in_tensor_name": "image", "in_tensor_dtype": "DT_HALF", "data": IMAGE + 0.25}]
    outputs = PredictClient(tf_serving, "Scaling_f16", 0).predict(data)
    np.testing.assert_array_equal(outputs["prediction"], ((IMAGE + 0.25) / 2).astype(np.float16), strict=True)


def test_a_version_that_is_no_number_is_a_value_error() -> None:
    with pytest.raises(InvalidJob, match="model_version") as caught:
        PredictClient("localhost:1", "Scaling", "latest")
    assert isinstance(caught.value, ValueError)


def test_metadata_of_an_unknown_model_are_not_found(tf_serving: str) -> None:
    with pytest.raises(ModelNotFound):
        PredictClient(tf_serving, "Nothing", 1).get_model_metadata()


def test_a_single_value_becomes_a_tensor_of_shape_1() -> None:
    tensor = make_tensor_proto(3, "DT_INT32")
    assert [dim.size for dim in tensor.tensor_shape.dim] == [1]
    assert tensor.dtype == 3


def test_a_reply_becomes_arrays_of_the_declared_shapes() -> None:
    response = PredictResponse(outputs={"scale": to_tensor([0.5], 1), "image": to_tensor(IMAGE, 2)})
    arrays = grpc_response_to_dict(response)
    np.testing.assert_array_equal(arrays["scale"], np.array([0.5], np.float32), strict=True)
    np.testing.assert_array_equal(arrays["image"], IMAGE.astype(np.float64), strict=True)


def test_a_wrapped_model_looks_like_one_of_keras(tf_serving: str) -> None:
    model = wrapper(tf_serving, "Convolving", max_batch_size=64, min_model_size=32)
    assert model.input_shape == (None, 32, 32, 2)
    assert model.get_batch_size() == 32
    outputs = model.predict(np.ones((5, 32, 32, 2), np.float32), batch_size=2)
    assert model.output_names == ["features", "prediction_1", "prediction_3"]
    assert [len(output) for output in outputs] == [5, 5, 5]


def test_a_wrapped_model_of_one_output_gives_an_array(tf_serving: str) -> None:
    output = wrapper(tf_serving, "Scaling", batch_size=1).predict(IMAGE)
    np.testing.assert_array_equal(output, IMAGE * 2, strict=True)


@pytest.mark.parametrize("is_named", [True, False])
def test_a_wrapped_model_takes_several_inputs(tf_serving: str, is_named: bool) -> None:
    model = wrapper(tf_serving, "Adding")
    assert model.input_shape == [(None, 4), (None, 4)]
    arrays = [np.full((3, 4), value, np.float32) for value in (1, 2)]
    inputs = dict(zip(["left", "right"], arrays, strict=True)) if is_named else arrays
    np.testing.assert_array_equal(model.predict(inputs, batch_size=2), np.full((3, 4), 3, np.float32), strict=True)


@pytest.mark.parametrize("inputs", [np.zeros((1, 4)), [np.zeros((1, 4))] * 3, {"left": np.zeros((1, 4))}])
def test_another_number_of_inputs_is_refused(tf_serving: str, inputs: Any) -> None:
    with pytest.raises(ModelMismatch, match="give one array for each"):
        wrapper(tf_serving, "Adding").predict(inputs)
