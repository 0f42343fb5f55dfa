from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from redis_consumer.errors import ModelMismatch, ModelNotFound
from redis_consumer.serving.onnx.session import MESSAGES, check_file, checksum, external_locations
from support import onnx_models as models


def external(location: str) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "weights")
    onnx.external_data_helper.set_external_data(tensor, location, offset=0)
    return tensor


def in_initializer(location: str) -> onnx.ModelProto:
    model = models.scaling(1.0)
    model.graph.initializer.append(external(location))
    return model


def in_nested_graph(location: str) -> onnx.ModelProto:
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=external(location))], "inner", [], [])
    model = models.scaling(1.0)
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))
    return model


def in_function(location: str) -> onnx.ModelProto:
    model = models.scaling(1.0)
    node = helper.make_node("Constant", [], ["c"], value=external(location))
    model.functions.append(helper.make_function("own", "f", [], ["c"], [node], [helper.make_opsetid("", 17)]))
    return model


def in_sparse_initializer(location: str) -> onnx.ModelProto:
    model = models.scaling(1.0)
    model.graph.sparse_initializer.add().values.CopyFrom(external(location))
    return model


def in_training(location: str) -> onnx.ModelProto:
    model = models.scaling(1.0)
    model.training_info.add().algorithm.initializer.append(external(location))
    return model


PLACES = [in_initializer, in_nested_graph, in_function, in_sparse_initializer, in_training]


@pytest.mark.parametrize("place", PLACES)
def test_external_data_are_found_wherever_a_tensor_may_be(tmp_path: Path, place: Any) -> None:
    path = models.save(tmp_path, "Model", 1, place("weights.bin"))
    assert external_locations(path) == {"weights.bin"}


def test_a_model_in_one_file_is_taken(tmp_path: Path) -> None:
    check_file(models.save(tmp_path, "Model", 1, models.convolving()))


def test_external_data_beside_the_model_are_taken(tmp_path: Path) -> None:
    path = models.save(tmp_path, "Model", 1, in_initializer("weights.bin"))
    (path.parent / "weights.bin").write_bytes(b"\0" * 4)
    check_file(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "a/../../weights.bin", "..\\weights.bin"])
def test_external_data_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    path = models.save(tmp_path, "Model", 1, in_initializer(location))
    (path.parents[1] / "weights.bin").write_bytes(b"\0" * 4)
    with pytest.raises(ModelMismatch, match=r"Model/1/model.onnx: its external data .* outside the model's folder"):
        check_file(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = models.save(tmp_path, "Model", 1, in_initializer("weights.bin"))
    (tmp_path / "secret").write_bytes(b"\0" * 4)
    (path.parent / "weights.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelMismatch, match="outside the model's folder"):
        check_file(path)


@pytest.mark.parametrize("location", ["weights.bin", "*/_ORT_MEM_ADDR_/*", "", "\0", "x" * 5000])
def test_external_data_that_are_no_file_are_refused(tmp_path: Path, location: str) -> None:
    path = models.save(tmp_path, "Model", 1, in_initializer(location))
    with pytest.raises(ModelMismatch, match="export the model as one file"):
        check_file(path)


@pytest.mark.parametrize("content", [b"", b"no model, just text", b"\x3a\xff\xff\x01", b"\x0b", b"\xff" * 30])
def test_a_file_that_is_no_model_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelMismatch, match="isn't an ONNX model"):
        check_file(path)


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    content = b""
    # Graph in attribute in node in graph, 60 times; lengths of two bytes throughout.
    for number in (6, 5, 1) * 60:
        size = len(content)
        content = bytes([number << 3 | 2, size & 0x7F | 0x80, size >> 7]) + content
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes([7 << 3 | 2, len(content) & 0x7F | 0x80, len(content) >> 7]) + content)
    with pytest.raises(ModelMismatch, match="nested too deeply"):
        check_file(path)


def test_an_absent_file_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"model.onnx: it doesn't exist"):
        check_file(tmp_path / "Model" / "1" / "model.onnx")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "model.onnx"


@given(content=st.binary(max_size=60), is_cut=st.booleans(), cut=st.integers(1, 400))
def test_any_bytes_pass_or_are_refused(scratch: Path, content: bytes, is_cut: bool, cut: int) -> None:
    whole = in_nested_graph("weights.bin").SerializeToString()
    scratch.write_bytes(whole[:cut] + content if is_cut else content)
    with suppress(ModelMismatch):
        check_file(scratch)


def test_the_field_numbers_are_those_of_the_format() -> None:
    for name, fields in MESSAGES.items():
        descriptor = getattr(onnx, name, None)
        numbers = (descriptor or getattr(onnx.onnx_ml_pb2, name)).DESCRIPTOR.fields_by_number
        for number, child in fields.items():
            assert numbers[number].message_type.name == child


def test_the_checksum_covers_the_file_and_its_external_data(tmp_path: Path) -> None:
    sums: list[str] = []
    for weights in (b"1234", b"1234", b"4321"):
        path = tmp_path / f"{len(sums)}.onnx"
        path.write_bytes(in_initializer("weights.bin").SerializeToString())
        (tmp_path / "weights.bin").write_bytes(weights)
        sums.append(checksum(path))
    assert sums[0] == sums[1] != sums[2]
