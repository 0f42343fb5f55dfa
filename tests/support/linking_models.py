"""Linking models of both kinds of the contract (section 5.7), that judge by distance alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Distance in pixels at which two regions are the same cell, and mother and daughter, with a probability of 0.6.
SAME_PX, DAUGHTER_PX = 8.0, 20.0
FREE: tuple[None, ...] = (None,)


def pairing() -> onnx.ModelProto:
    """The kind of eight inputs: ``input3`` is the way from the track to the cell."""
    nodes = [helper.make_node("Squeeze", ["input3", "one"], ["way"])]
    sides = {"0": (32, 32, 1), "2": (2,), "4": (61, 61, 1), "6": (3,)}
    shapes = {f"input{int(number) + step}": (None, None, *side) for number, side in sides.items() for step in (0, 1)}
    return _model([*nodes, *_judging(1)], shapes, {"prediction": (None, 3)}, last=1)


def encoding() -> onnx.ModelProto:
    """The encoder: its second output, by name, is a cell's centroid; the first one is something else."""
    nodes = [
        helper.make_node("Identity", ["encoder_centroid_input"], ["embedding"]),
        helper.make_node("Identity", ["encoder_morph_input"], ["centroid_like"]),
    ]
    shapes: dict[str, tuple[int | None, ...]] = {
        "encoder_app_input": (None, None, 32, 32, 1),
        "encoder_morph_input": (None, None, 3),
        "encoder_centroid_input": (None, None, 2),
        "encoder_adj_input": (None, None, None),
    }
    return _model(nodes, shapes, {"embedding": (None, None, 2), "centroid_like": (None, None, 3)}, last=2)


def embedding() -> onnx.ModelProto:
    """The kind of embeddings: compares the last one of each track with that of each cell."""
    nodes = [
        helper.make_node("Gather", ["current_embeddings", "last"], ["recent"], axis=1),
        helper.make_node("Unsqueeze", ["recent", "two"], ["rows"]),
        helper.make_node("Sub", ["rows", "future_embeddings"], ["way"]),
        *_judging(3, output="flat"),
        helper.make_node("Unsqueeze", ["flat", "one"], ["prediction"]),
    ]
    names = [f"{time}_{what}" for time in ("current", "future") for what in ("embeddings", "centroids")]
    shapes: dict[str, tuple[int | None, ...]] = dict.fromkeys(names, (1, None, None, 2))
    return _model(nodes, shapes, {"prediction": (1, 1, None, None, 3)}, last=3)


def _judging(axis: int, output: str = "prediction") -> list[onnx.NodeProto]:
    """From ``way``, whose last axis is row and column, to the three probabilities along a new last axis."""
    return [
        helper.make_node("Mul", ["way", "way"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "last_axis"], ["distance"], keepdims=1),
        helper.make_node("Mul", ["distance", "same_scale"], ["same_log"]),
        helper.make_node("Exp", ["same_log"], ["same"]),
        helper.make_node("Mul", ["distance", "daughter_scale"], ["daughter_log"]),
        helper.make_node("Exp", ["daughter_log"], ["daughter"]),
        helper.make_node("Sub", ["unit", "same"], ["other"]),
        helper.make_node("Concat", ["other", "same", "daughter"], [output], axis=axis),
    ]


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int | None, ...]],
    outputs: dict[str, tuple[int | None, ...]],
    *,
    last: int,
) -> onnx.ModelProto:
    constants = {
        "one": np.array([1]),
        "two": np.array([2]),
        "last": np.array(-1),
        "last_axis": np.array([last]),
        "unit": np.float32(1),
        "same_scale": np.float32(-0.5 / SAME_PX**2),
        "daughter_scale": np.float32(-0.5 / DAUGHTER_PX**2),
    }
    used = {name for node in nodes for name in node.input}
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used]
    graph = helper.make_graph(list(nodes), "linking", _values(inputs), _values(outputs), weights)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model


def _values(shapes: dict[str, tuple[int | None, ...]]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
