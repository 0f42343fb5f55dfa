"""The official Open Inference Protocol messages, built at run time from their published field numbers.

Nothing of `redis_consumer` is used, so that a client can be checked against it.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from support.tf_protos import message_proto

FILE = "open_inference/all_messages.proto"
PARAMETERS = "parameters map:inference.InferParameter"
# A message inside another one is named with it, and stands behind it. How a field is written: see `support.tf_protos`.
MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 ready bool",
    "ModelReadyRequest": "1 name string; 2 version string",
    "ModelReadyResponse": "1 ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 name string; 2 version string; 3 extensions *string",
    "ModelMetadataRequest": "1 name string; 2 version string",
    "ModelMetadataResponse": (
        "1 name string; 2 versions *string; 3 platform string; "
        "4 inputs *inference.ModelMetadataResponse.TensorMetadata; "
        "5 outputs *inference.ModelMetadataResponse.TensorMetadata"
    ),
    "ModelMetadataResponse.TensorMetadata": "1 name string; 2 datatype string; 3 shape *int64",
    "InferParameter": (
        "1 parameter_choice|bool_param bool; 2 parameter_choice|int64_param int64; "
        "3 parameter_choice|string_param string"
    ),
    "InferTensorContents": (
        "1 bool_contents *bool; 2 int_contents *int32; 3 int64_contents *int64; 4 uint_contents *uint32; "
        "5 uint64_contents *uint64; 6 fp32_contents *float; 7 fp64_contents *double; 8 bytes_contents *bytes"
    ),
    "ModelInferRequest": (
        f"1 model_name string; 2 model_version string; 3 id string; 4 {PARAMETERS}; "
        "5 inputs *inference.ModelInferRequest.InferInputTensor; "
        "6 outputs *inference.ModelInferRequest.InferRequestedOutputTensor; 7 raw_input_contents *bytes"
    ),
    "ModelInferRequest.InferInputTensor": (
        f"1 name string; 2 datatype string; 3 shape *int64; 4 {PARAMETERS}; 5 contents inference.InferTensorContents"
    ),
    "ModelInferRequest.InferRequestedOutputTensor": f"1 name string; 2 {PARAMETERS}",
    "ModelInferResponse": (
        f"1 model_name string; 2 model_version string; 3 id string; 4 {PARAMETERS}; "
        "5 outputs *inference.ModelInferResponse.InferOutputTensor; 6 raw_output_contents *bytes"
    ),
    "ModelInferResponse.InferOutputTensor": (
        f"1 name string; 2 datatype string; 3 shape *int64; 4 {PARAMETERS}; 5 contents inference.InferTensorContents"
    ),
}


def official_file() -> FileDescriptorProto:
    """Describe the package ``inference``."""
    file = FileDescriptorProto(name=FILE, package="inference", syntax="proto3")
    known: dict[str, DescriptorProto] = {}
    for name, fields in MESSAGES.items():
        outer, _, last = name.rpartition(".")
        made = message_proto(f"inference.{outer}" if outer else "inference", last, fields)
        known[name] = (known[outer].nested_type if outer else file.message_type).add()
        known[name].CopyFrom(made)
    return file


def official_class(name: str) -> Any:
    """Class of an official message by its name, e.g. ``ModelInferRequest``."""
    # The process's own pool, where a plug-in that brings the official messages would put them too.
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName(FILE)
    except KeyError:
        pool.AddSerializedFile(official_file().SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}"))
