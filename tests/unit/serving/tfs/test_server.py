from __future__ import annotations

import json

import numpy as np
import pytest

from redis_consumer.errors import ModelMismatch, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving import TensorSpec
from redis_consumer.serving._pb.tfs_pb2 import GetModelMetadataResponse
from redis_consumer.serving.tfs.server import metadata_as_json, model_spec, signature
from support.tf_protos import official_class

MODEL = ModelId("Nuclei", 3)


def response(signature_name: str = "serving_default") -> GetModelMetadataResponse:
    """What a server sends, written with the official messages."""
    signatures = official_class("tensorflow.serving.SignatureDefMap")()
    definition = signatures.signature_def[signature_name]
    definition.method_name = "tensorflow/serving/predict"
    for name, dtype, sizes in (("second", 14, [-1]), ("first", 1, [-1, 256, 256, 1])):
        tensor = definition.inputs[name]
        tensor.name = f"{name}:0"
        tensor.dtype = dtype
        for size in sizes:
            tensor.tensor_shape.dim.add(size=size)
    definition.outputs["any"].dtype = 3
    definition.outputs["any"].tensor_shape.unknown_rank = True
    definition.outputs["quantised"].dtype = 11
    message = official_class("tensorflow.serving.GetModelMetadataResponse")()
    message.model_spec.name = "Nuclei"
    message.model_spec.version.value = 3
    message.metadata["signature_def"].Pack(signatures)
    return GetModelMetadataResponse.FromString(message.SerializeToString())


def test_inputs_and_outputs_are_sorted_and_free_sizes_are_none() -> None:
    spec = model_spec(signature(response(), MODEL))
    assert spec.inputs == (
        TensorSpec("first", np.dtype(np.float32), (None, 256, 256, 1)),
        TensorSpec("second", np.dtype(np.float32), (None,)),
    )
    assert spec.outputs == (
        TensorSpec("any", np.dtype(np.int32), None),
        TensorSpec("quantised", np.dtype(object), ()),
    )


def test_the_json_form_has_the_inputs_where_older_consumers_look() -> None:
    metadata = json.loads(json.dumps(metadata_as_json(response(), MODEL)))
    inputs = metadata["metadata"]["signature_def"]["signatureDef"]["serving_default"]["inputs"]
    assert inputs["first"] == {
        "dtype": "DT_FLOAT",
        "tensorShape": {"dim": [{"size": "-1"}, {"size": "256"}, {"size": "256"}, {"size": "1"}]},
        "name": "first:0",
    }
    assert metadata["modelSpec"] == {"name": "Nuclei", "version": "3"}


def test_a_model_without_the_default_signature_is_refused_with_those_it_has() -> None:
    with pytest.raises(ModelMismatch, match=r"model Nuclei:3: .*it has: train"):
        signature(response("train"), MODEL)


@pytest.mark.parametrize("damage", ["absent", "other type", "garbage"])
def test_a_reply_that_is_none_of_tensorflow_serving_is_the_servers_fault(damage: str) -> None:
    message = response()
    if damage == "absent":
        message.metadata.clear()
    elif damage == "other type":
        message.metadata["signature_def"].type_url = "type.googleapis.com/other.Message"
    else:
        message.metadata["signature_def"].value = b"\xff\xff"
    with pytest.raises(ModelServerUnavailable, match="check that it is TensorFlow Serving"):
        signature(message, MODEL)
