"""Our messages against the official ones: same bytes, one process."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from redis_consumer.serving._pb import tfs_pb2
from redis_consumer.serving.tfs.tensors import WIRE_TYPES
from support.tf_protos import official_class, official_files

MESSAGES = [
    "tensorflow.TensorShapeProto",
    "tensorflow.TensorProto",
    "tensorflow.TensorInfo",
    "tensorflow.SignatureDef",
    "tensorflow.serving.ModelSpec",
    "tensorflow.serving.PredictRequest",
    "tensorflow.serving.PredictResponse",
    "tensorflow.serving.GetModelMetadataRequest",
    "tensorflow.serving.GetModelMetadataResponse",
    "tensorflow.serving.SignatureDefMap",
]


def message_facts(descriptor: Any) -> tuple[Any, ...]:
    """What decides the bytes of a message, and which fields exclude each other."""
    message = DescriptorProto()
    descriptor.CopyToProto(message)
    return wire_facts(message), {choice.name: [field.name for field in choice.fields] for choice in descriptor.oneofs}


def request(version: int | None) -> Any:
    message = tfs_pb2.PredictRequest()
    message.model_spec.name = "Nuclei"
    if version is not None:
        message.model_spec.version.value = version
    tensor = message.inputs["image"]
    tensor.dtype = tfs_pb2.DT_FLOAT
    tensor.tensor_shape.dim.add(size=2)
    tensor.tensor_content = b"\0\0\x80\x3f\0\0\0\x40"
    message.output_filter.append("prediction")
    return message


@pytest.mark.parametrize("name", MESSAGES)
def test_both_definitions_live_in_one_process_and_agree(name: str) -> None:
    ours = getattr(tfs_pb2, name.rpartition(".")[2])
    assert message_facts(ours.DESCRIPTOR) == message_facts(official_class(name).DESCRIPTOR)


@pytest.mark.parametrize("version", [None, 0, 1, 2**40])
def test_a_request_is_the_official_one_byte_for_byte(version: int | None) -> None:
    content = request(version).SerializeToString(deterministic=True)
    official = official_class("tensorflow.serving.PredictRequest").FromString(content)
    assert official.SerializeToString(deterministic=True) == content
    assert official.model_spec.HasField("version") is (version is not None)
    assert official.model_spec.version.value == (version or 0)
    assert official.inputs["image"].tensor_shape.dim[0].size == 2


def test_a_present_version_0_is_an_empty_value() -> None:
    spec = request(0).model_spec
    assert spec.SerializeToString(deterministic=True).endswith(b"\x12\x00")


def test_a_label_takes_the_place_of_a_version() -> None:
    spec = request(3).model_spec
    spec.version_label = "stable"
    assert not official_class("tensorflow.serving.ModelSpec").FromString(spec.SerializeToString()).HasField("version")


def test_element_types_have_the_official_numbers() -> None:
    data_type = official_class("tensorflow.TensorProto").DESCRIPTOR.fields_by_name["dtype"].enum_type
    assert dict(tfs_pb2.DataType.items()) == {value.name: value.number for value in data_type.values}
    for kind in WIRE_TYPES:
        assert data_type.values_by_number[kind.number].name == kind.name
        assert kind.field in official_class("tensorflow.TensorProto").DESCRIPTOR.fields_by_name


# Public packages that carry the official definitions. Only their files are read: importing them would need TensorFlow.
PUBLISHED = {
    "tensorboard": ["tensor", "tensor_shape", "types", "meta_graph"],
    "tensorflow_serving": ["model", "predict", "get_model_metadata"],
}
FOLDERS = {"tensorboard": "compat/proto", "tensorflow_serving": "apis"}


def published_files(package: str) -> list[FileDescriptorProto]:
    found = importlib.util.find_spec(package)
    locations = list(found.submodule_search_locations or ()) if found else []
    if not locations:
        pytest.skip(f"{package} isn't installed; `pip install --no-deps tensorboard tensorflow-serving-api` brings it")
    folder = Path(locations[0]) / FOLDERS[package]
    return [serialized_file(folder / f"{name}_pb2.py") for name in PUBLISHED[package]]


def serialized_file(path: Path) -> FileDescriptorProto:
    """The descriptor that a generated module holds as a literal."""
    literals = [
        node.args[0].value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "AddSerializedFile"
        and isinstance(node.args[0], ast.Constant)
    ]
    assert len(literals) == 1
    assert isinstance(literals[0], bytes)
    return FileDescriptorProto.FromString(literals[0])


def wire_facts(message: DescriptorProto) -> dict[int, tuple[Any, ...]]:
    # TensorBoard's copy has other package names; the last part of a type's name is the same.
    return {field.number: fact(field) for field in message.field}


def fact(field: FieldDescriptorProto) -> tuple[Any, ...]:
    return field.name, field.type, field.label, field.type_name.rpartition(".")[2]


@pytest.mark.parametrize("package", list(PUBLISHED))
def test_our_official_messages_are_the_published_ones(package: str) -> None:
    published = {message.name: message for file in published_files(package) for message in file.message_type}
    compared = 0
    for file in official_files():
        for message in file.message_type:
            if message.name in published:
                facts = wire_facts(published[message.name])
                assert wire_facts(message).items() <= facts.items()
                compared += 1
    assert compared >= 4


def test_our_element_types_are_the_published_ones() -> None:
    types = next(file for file in published_files("tensorboard") for enum in file.enum_type if enum.name == "DataType")
    published = {value.name: value.number for enum in types.enum_type for value in enum.value}
    assert dict(tfs_pb2.DataType.items()).items() <= published.items()
