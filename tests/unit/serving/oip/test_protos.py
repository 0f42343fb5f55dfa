"""Our messages against the official ones: same bytes, one process."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from redis_consumer.serving._pb import oip_pb2
from support.oip_protos import official_class, official_file
from support.open_inference import ENVIRONMENTS

MESSAGES = [
    "ServerReadyResponse",
    "ModelReadyRequest",
    "ModelReadyResponse",
    "ModelMetadataRequest",
    "ModelMetadataResponse",
    "ModelMetadataResponse.TensorMetadata",
    "InferTensorContents",
    "ModelInferRequest",
    "ModelInferRequest.InferInputTensor",
    "ModelInferResponse",
    "ModelInferResponse.InferOutputTensor",
]


def our_class(name: str) -> Any:
    found: Any = oip_pb2
    for part in name.split("."):
        found = getattr(found, part)
    return found


def wire_facts(descriptor: Any) -> dict[int, tuple[Any, ...]]:
    """What decides the bytes of a message."""
    message = DescriptorProto()
    descriptor.CopyToProto(message)
    return field_facts(message)


def field_facts(message: DescriptorProto) -> dict[int, tuple[Any, ...]]:
    return {
        field.number: (field.name, field.type, field.label, field.type_name.rpartition(".")[2])
        for field in message.field
    }


@pytest.mark.parametrize("name", MESSAGES)
def test_both_definitions_live_in_one_process_and_agree(name: str) -> None:
    assert wire_facts(our_class(name).DESCRIPTOR).items() <= wire_facts(official_class(name).DESCRIPTOR).items()


def test_a_request_is_the_official_one_byte_for_byte() -> None:
    request = oip_pb2.ModelInferRequest(model_name="Nuclei", model_version="3", raw_input_contents=[b"\0\0\x80\x3f"])
    request.inputs.add(name="image", datatype="FP32", shape=[1, 1])
    content = request.SerializeToString(deterministic=True)
    official = official_class("ModelInferRequest").FromString(content)
    assert official.SerializeToString(deterministic=True) == content
    assert (official.inputs[0].name, list(official.inputs[0].shape)) == ("image", [1, 1])


def test_parameters_that_a_server_adds_are_stepped_over() -> None:
    official = official_class("ModelInferResponse")(model_name="Nuclei")
    official.parameters["sequence_id"].int64_param = 7
    official.outputs.add(name="prediction").parameters["binary_data"].bool_param = True
    assert oip_pb2.ModelInferResponse.FromString(official.SerializeToString()).outputs[0].name == "prediction"


# Public packages that carry the official definitions, in environments of their own; see the Makefile.
PUBLISHED = {"mlserver": "mlserver.grpc.dataplane_pb2", "triton": "tritonclient.grpc.service_pb2"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(PUBLISHED))
def test_our_official_messages_are_the_published_ones(kind: str) -> None:
    python = ENVIRONMENTS / kind / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{kind} isn't installed; `make model-servers` brings it")
    code = f"import sys, {PUBLISHED[kind]} as published; sys.stdout.buffer.write(published.DESCRIPTOR.serialized_pb)"
    content = subprocess.run([python, "-c", code], capture_output=True, check=True).stdout
    published = {message.name: message for message in FileDescriptorProto.FromString(content).message_type}
    for message in official_file().message_type:
        assert field_facts(message).items() <= field_facts(published[message.name]).items()
        inner = {nested.name: nested for nested in published[message.name].nested_type}
        for nested in message.nested_type:
            assert field_facts(nested).items() <= field_facts(inner[nested.name]).items()
