"""The official TensorFlow Serving messages, built at run time from their published field numbers.

No TensorFlow is needed, and nothing of `redis_consumer` is used, so that a client can be checked against it.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import any_pb2, descriptor_pool, message_factory, wrappers_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

# Each field: number, name, type. `*` is repeated, `a|b` in front of a name a oneof of that name.
# A map is written as its value's type behind `map:`; its keys are strings.
TENSOR_SHAPE_DIM = "1 size int64; 2 name string"
TENSORFLOW = {
    "TensorShapeProto": "2 dim *tensorflow.TensorShapeProto.Dim; 3 unknown_rank bool",
    "TensorProto": (
        "1 dtype enum:tensorflow.DataType; 2 tensor_shape tensorflow.TensorShapeProto; 3 version_number int32; "
        "4 tensor_content bytes; 5 float_val *float; 6 double_val *double; 7 int_val *int32; 8 string_val *bytes; "
        "9 scomplex_val *float; 10 int64_val *int64; 11 bool_val *bool; 12 dcomplex_val *double; 13 half_val *int32; "
        "16 uint32_val *uint32; 17 uint64_val *uint64"
    ),
    "TensorInfo": (
        "1 encoding|name string; 2 dtype enum:tensorflow.DataType; 3 tensor_shape tensorflow.TensorShapeProto"
    ),
    "SignatureDef": "1 inputs map:tensorflow.TensorInfo; 2 outputs map:tensorflow.TensorInfo; 3 method_name string",
}
SERVING = {
    "ModelSpec": (
        "1 name string; 2 version_choice|version google.protobuf.Int64Value; 4 version_choice|version_label string; "
        "3 signature_name string"
    ),
    "PredictRequest": (
        "1 model_spec tensorflow.serving.ModelSpec; 2 inputs map:tensorflow.TensorProto; 3 output_filter *string"
    ),
    "PredictResponse": "1 outputs map:tensorflow.TensorProto; 2 model_spec tensorflow.serving.ModelSpec",
    "GetModelMetadataRequest": "1 model_spec tensorflow.serving.ModelSpec; 2 metadata_field *string",
    "GetModelMetadataResponse": ("1 model_spec tensorflow.serving.ModelSpec; 2 metadata map:google.protobuf.Any"),
    "SignatureDefMap": "1 signature_def map:tensorflow.SignatureDef",
}
DATA_TYPES = (
    "INVALID FLOAT DOUBLE INT32 UINT8 INT16 INT8 STRING COMPLEX64 INT64 BOOL QINT8 QUINT8 QINT32 BFLOAT16 QINT16 "
    "QUINT16 UINT16 COMPLEX128 HALF RESOURCE VARIANT UINT32 UINT64"
)

FILES = {
    "tensorflow": "tensorflow/core/framework/all_messages.proto",
    "tensorflow.serving": "tensorflow_serving/apis/all_messages.proto",
}


def official_files() -> list[FileDescriptorProto]:
    """Describe the two packages, in the order in which they depend on each other."""
    core = FileDescriptorProto(name=FILES["tensorflow"], package="tensorflow", syntax="proto3")
    data_type = core.enum_type.add(name="DataType")
    for number, name in enumerate(DATA_TYPES.split()):
        data_type.value.add(name=f"DT_{name}", number=number)
    for name, fields in TENSORFLOW.items():
        core.message_type.append(message_proto("tensorflow", name, fields))
    dim = message_proto("tensorflow", "Dim", TENSOR_SHAPE_DIM)
    next(message for message in core.message_type if message.name == "TensorShapeProto").nested_type.append(dim)

    serving = FileDescriptorProto(name=FILES["tensorflow.serving"], package="tensorflow.serving", syntax="proto3")
    serving.dependency.extend([core.name, any_pb2.DESCRIPTOR.name, wrappers_pb2.DESCRIPTOR.name])
    for name, fields in SERVING.items():
        serving.message_type.append(message_proto("tensorflow.serving", name, fields))
    return [core, serving]


def official_class(name: str) -> Any:
    """Class of an official message by its full name, e.g. ``tensorflow.serving.PredictRequest``."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))


def _pool() -> Any:
    # The process's own pool, where a plug-in that brings the official messages would put them too.
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName(FILES["tensorflow.serving"])
    except KeyError:
        for file in official_files():
            pool.AddSerializedFile(file.SerializeToString())
    return pool


def message_proto(package: str, name: str, fields: str) -> DescriptorProto:
    """Describe a message: its package, with the names of the messages around it, its name, and its fields."""
    message = DescriptorProto(name=name)
    for text in filter(None, fields.split("; ")):
        match = re.fullmatch(r"(\d+) (?:(\w+)\|)?(\w+) (\*?)(?:(map|enum):)?([\w.]+)", text)
        assert match is not None, text
        number, choice, field_name, star, kind, type_name = match.groups()
        field = message.field.add(name=field_name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
        if star or kind == "map":
            field.label = FieldDescriptorProto.LABEL_REPEATED
        if choice:
            field.oneof_index = _oneof(message, choice)
        if kind == "map":
            entry = _map_entry(message, field_name, type_name)
            type_name = f"{package}.{name}.{entry}"
        _set_type(field, type_name, is_enum=kind == "enum")
    return message


def _oneof(message: DescriptorProto, name: str) -> int:
    names = [oneof.name for oneof in message.oneof_decl]
    if name not in names:
        message.oneof_decl.add(name=name)
        names.append(name)
    return names.index(name)


def _map_entry(message: DescriptorProto, field_name: str, value_type: str) -> str:
    entry = message.nested_type.add(name="".join(part.title() for part in field_name.split("_")) + "Entry")
    entry.options.map_entry = True
    key = entry.field.add(name="key", number=1, label=FieldDescriptorProto.LABEL_OPTIONAL)
    key.type = FieldDescriptorProto.TYPE_STRING
    value = entry.field.add(name="value", number=2, label=FieldDescriptorProto.LABEL_OPTIONAL)
    _set_type(value, value_type, is_enum=False)
    return str(entry.name)


def _set_type(field: FieldDescriptorProto, type_name: str, *, is_enum: bool) -> None:
    if "." not in type_name:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{type_name.upper()}")
        return
    field.type = FieldDescriptorProto.TYPE_ENUM if is_enum else FieldDescriptorProto.TYPE_MESSAGE
    field.type_name = f".{type_name}"
