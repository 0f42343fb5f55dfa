"""Writes an ONNX model that separates the foreground of images from the background.

Run it with the folder of the new version: ``python own_model.py models/Foreground/1``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE: tuple[str | int, ...] = ("batch", "y", "x", 1)
SMOOTH_PX = 5


def foreground() -> onnx.ModelProto:
    """Stands for your network: each pixel's surroundings, 0 to 1, as a probability of foreground."""
    numbers = {"level": 0.3, "steepness": 20.0}
    nodes = [
        # Networks work on (batch, channel, y, x), images come as (batch, y, x, channel).
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool", ["planes"], ["smooth"], kernel_shape=[SMOOTH_PX, SMOOTH_PX], pads=[SMOOTH_PX // 2] * 4
        ),
        helper.make_node("Sub", ["smooth", "level"], ["above"]),
        helper.make_node("Mul", ["above", "steepness"], ["steep"]),
        helper.make_node("Sigmoid", ["steep"], ["probability"]),
        helper.make_node("Transpose", ["probability"], ["prediction"], perm=[0, 2, 3, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "foreground",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, IMAGE)],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, IMAGE)],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in numbers.items()],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(foreground().SerializeToString())
