"""Small ONNX models, made by code."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Size = int | str | None
FREE_IMAGE: tuple[Size, ...] = (None, None, None, 1)

# Each element type that onnxruntime and TensorFlow Serving share, by numpy's name.
ELEMENT_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "bool": TensorProto.BOOL,
}


def save(folder: Path, name: str, version: int, model: onnx.ModelProto) -> Path:
    """Write a model into the layout ``<folder>/<name>/<version>/model.onnx``."""
    path = folder / name / str(version) / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(model.SerializeToString())
    return path


def scaling(factor: float, *, dtype: str = "float32", shape: Sequence[Size] | None = FREE_IMAGE) -> onnx.ModelProto:
    """``prediction = image * factor``."""
    weight = numpy_helper.from_array(np.array(factor, dtype=dtype), "factor")
    kind = ELEMENT_TYPES[dtype]
    return _model(
        [helper.make_node("Mul", ["image", "factor"], ["prediction"])],
        [("image", kind, shape)],
        [("prediction", kind, shape)],
        [weight],
    )


def convolving(side: int = 32) -> onnx.ModelProto:
    """Two predictions and one other output, by random convolutions of an image of a fixed size and 2 channels."""
    rng = np.random.default_rng(7)
    weights = [
        numpy_helper.from_array(rng.normal(size=(channels, 2, 3, 3)).astype(np.float32), f"weights_{channels}")
        for channels in (1, 3)
    ]
    nodes = [helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2])]
    for channels in (1, 3):
        nodes += [
            helper.make_node("Conv", ["planes", f"weights_{channels}"], [f"conv_{channels}"], pads=[1, 1, 1, 1]),
            helper.make_node("Sigmoid", [f"conv_{channels}"], [f"sigmoid_{channels}"]),
            helper.make_node("Transpose", [f"sigmoid_{channels}"], [f"prediction_{channels}"], perm=[0, 2, 3, 1]),
        ]
    nodes.append(helper.make_node("GlobalMaxPool", ["planes"], ["features"]))
    shapes = [("prediction_3", 3), ("prediction_1", 1)]
    outputs: list[tuple[str, int, Sequence[Size] | None]] = [
        (name, TensorProto.FLOAT, (None, side, side, channels)) for name, channels in shapes
    ]
    outputs.append(("features", TensorProto.FLOAT, (None, 2, 1, 1)))
    return _model(nodes, [("image", TensorProto.FLOAT, (None, side, side, 2))], outputs, weights)


def blurring(side: int = 21) -> onnx.ModelProto:
    """``prediction_0`` is the mean over a square around each pixel, ``prediction_1`` the image itself."""
    weight = numpy_helper.from_array(np.full((1, 1, side, side), side**-2, np.float32), "mean")
    nodes = [
        helper.make_node("Transpose", ["image"], ["plane"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["plane", "mean"], ["blurred"], pads=[side // 2] * 4),
        helper.make_node("Transpose", ["blurred"], ["prediction_0"], perm=[0, 2, 3, 1]),
        helper.make_node("Identity", ["image"], ["prediction_1"]),
    ]
    outputs = [(f"prediction_{number}", TensorProto.FLOAT, FREE_IMAGE) for number in range(2)]
    return _model(nodes, [("image", TensorProto.FLOAT, FREE_IMAGE)], outputs, [weight])


def adding() -> onnx.ModelProto:
    """``sum = right + left``, two inputs declared in this order."""
    shape = (None, 4)
    return _model(
        [helper.make_node("Add", ["right", "left"], ["sum"])],
        [(name, TensorProto.FLOAT, shape) for name in ("right", "left")],
        [("sum", TensorProto.FLOAT, shape)],
    )


def echoing(dtypes: Collection[str] = ELEMENT_TYPES.keys()) -> onnx.ModelProto:
    """Gives back an input of each element type, ``in_<dtype>`` as ``out_<dtype>``."""
    shape = (None, 3)
    kinds = {dtype: ELEMENT_TYPES[dtype] for dtype in dtypes}
    return _model(
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in kinds],
        [(f"in_{name}", kind, shape) for name, kind in kinds.items()],
        [(f"out_{name}", kind, shape) for name, kind in kinds.items()],
    )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Sequence[Size] | None]],
    outputs: Sequence[tuple[str, int, Sequence[Size] | None]],
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        list(weights),
    )
    # Old versions on purpose: each onnxruntime that we allow reads them.
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model


def spotting(dy: float = 0.25, dx: float = -0.25) -> onnx.ModelProto:
    """A model of spots with a known answer: a pixel's value is its probability, and each spot has the same offset.

    The outputs are declared in another order than that of their names.
    """
    nodes = [
        helper.make_node("Sub", ["one", "image"], ["other"]),
        helper.make_node("Concat", ["other", "image"], ["classification"], axis=3),
        helper.make_node("Mul", ["classification", "zero"], ["blank"]),
        helper.make_node("Add", ["blank", "offset"], ["offset_regression"]),
    ]
    weights = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in {"one": 1, "zero": 0, "offset": [dy, dx]}.items()
    ]
    outputs = [(name, TensorProto.FLOAT, (None, None, None, 2)) for name in ("offset_regression", "classification")]
    return _model(nodes, [("image", TensorProto.FLOAT, FREE_IMAGE)], outputs, weights)


def multiplexing(side: int = 9) -> onnx.ModelProto:
    """A model of nuclei (channel 0) and whole cells (channel 1): the mean around a pixel, and the pixel in 3 classes.

    The heads are called as those of the kiosk's model, cell before nucleus, and declared in the reverse order.
    """
    mean = numpy_helper.from_array(np.full((1, 1, side, side), side**-2, np.float32), "mean")
    weights = [mean]
    nodes = [helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2])]
    outputs: list[tuple[str, int, Sequence[Size] | None]] = []
    for head, channel in (("nuclear", 0), ("cell", 1)):
        weights.append(numpy_helper.from_array(np.array([channel]), f"{head}_index"))
        nodes += [
            helper.make_node("Gather", ["planes", f"{head}_index"], [f"{head}_plane"], axis=1),
            helper.make_node("Conv", [f"{head}_plane", "mean"], [f"{head}_mean"], pads=[side // 2] * 4),
            helper.make_node("Concat", [f"{head}_plane"] * 3, [f"{head}_classes"], axis=1),
        ]
        number = 2 * (1 - channel)
        for place, source, count in ((number + 1, "classes", 3), (number, "mean", 1)):
            name = f"prediction_{place}"
            nodes.append(helper.make_node("Transpose", [f"{head}_{source}"], [name], perm=[0, 2, 3, 1]))
            outputs.append((name, TensorProto.FLOAT, (None, None, None, count)))
    return _model(nodes, [("image", TensorProto.FLOAT, (None, None, None, 2))], outputs, weights)


def detecting() -> onnx.ModelProto:
    """Finds the same objects in each image: boxes, scores, classes and masks of 14 x 14 px.

    A square of 20 px, two squares of 30 px that share 10 columns, one that overlaps both, and one of a low score.
    """
    boxes = [[5, 5, 25, 25], [40, 40, 70, 70], [60, 40, 90, 70], [41, 45, 61, 65]]
    found = {
        "prediction": [[*boxes[:3], boxes[3]]],
        "prediction_1": [[0.9, 0.9, 0.8, 0.3]],
        "prediction_2": [[0.0] * 4],
        "prediction_3": np.ones((1, 4, 14, 14, 1)),
    }
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["brightest"], keepdims=0),
        helper.make_node("Mul", ["brightest", "zero"], ["nothing"]),
    ]
    weights = [numpy_helper.from_array(np.array(0, np.float32), "zero")]
    outputs: list[tuple[str, int, Sequence[Size] | None]] = []
    for name, values in found.items():
        array = np.array(values, np.float32)
        weights.append(numpy_helper.from_array(array, f"{name}_values"))
        nodes.append(helper.make_node("Add", [f"{name}_values", "nothing"], [name]))
        outputs.append((name, TensorProto.FLOAT, (None, *array.shape[1:])))
    return _model(nodes, [("image", TensorProto.FLOAT, FREE_IMAGE)], outputs, weights)
