from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from redis_consumer.errors import ModelMismatch, ModelNotFound, SettingsError
from redis_consumer.job import ModelId
from redis_consumer.serving import TensorSpec
from redis_consumer.serving.onnx import session
from redis_consumer.serving.onnx.server import OnnxServer
from support import onnx_models as models

SCALING = ModelId("Scaling", 1)
IMAGE = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)


def test_a_prediction_comes_back(onnx_server: OnnxServer) -> None:
    outputs = onnx_server.predict(SCALING, {"image": IMAGE})
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * 2, strict=True)


def test_outputs_come_back_sorted_by_name(onnx_server: OnnxServer) -> None:
    outputs = onnx_server.predict(ModelId("Convolving"), {"image": np.ones((2, 32, 32, 2), np.float32)})
    assert list(outputs) == ["features", "prediction_1", "prediction_3"]


def test_metadata_say_names_types_and_shapes(onnx_server: OnnxServer) -> None:
    spec = onnx_server.metadata(ModelId("Adding", 1))
    assert spec.inputs == tuple(TensorSpec(name, np.dtype(np.float32), (None, 4)) for name in ("left", "right"))
    assert spec.outputs == (TensorSpec("sum", np.dtype(np.float32), (None, 4)),)
    assert onnx_server.metadata(ModelId("AnyRank")).inputs[0].shape is None
    assert onnx_server.metadata(ModelId("Scaling_f16")).inputs[0].dtype == np.float16


def test_each_element_type_goes_through(onnx_server: OnnxServer) -> None:
    inputs = {f"in_{dtype}": np.array([[0, 1, 1]], dtype) for dtype in models.ELEMENT_TYPES}
    outputs = onnx_server.predict(ModelId("Echoing"), inputs)
    for dtype in models.ELEMENT_TYPES:
        np.testing.assert_array_equal(outputs[f"out_{dtype}"], inputs[f"in_{dtype}"], strict=True)


@pytest.mark.parametrize("dtype", ["uint8", "float64", ">f4"])
def test_another_dtype_is_cast(onnx_server: OnnxServer, dtype: str) -> None:
    outputs = onnx_server.predict(SCALING, {"image": IMAGE.astype(dtype)})
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * 2, strict=True)


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"picture": IMAGE}, "it takes 'image', but got 'picture'"),
        ({"image": IMAGE[0]}, r"\[3, 4, 1\], but the model takes \[any, any, any, 1\]"),
        ({"image": IMAGE.astype(complex)}, "complex128"),
    ],
)
def test_inputs_that_do_not_fit_are_a_mismatch(onnx_server: OnnxServer, inputs: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelMismatch, match=problem):
        onnx_server.predict(SCALING, inputs)


def test_sizes_that_only_the_run_finds_wrong_are_a_mismatch(tmp_path: Path) -> None:
    model = models.adding()
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[1].Clear()
    server = OnnxServer(lambda _: models.save(tmp_path, "Adding", 1, model))
    with pytest.raises(ModelMismatch, match="model Adding:1: onnxruntime can't run it") as caught:
        server.predict(ModelId("Adding", 1), {"left": np.zeros((1, 2), "f4"), "right": np.zeros((1, 3), "f4")})
    assert caught.value.model == "Adding:1"


def test_an_unknown_model_is_not_found(onnx_server: OnnxServer) -> None:
    with pytest.raises(ModelNotFound):
        onnx_server.predict(ModelId("Nothing"), {"image": IMAGE})


def test_a_file_that_is_no_model_is_a_mismatch(tmp_path: Path) -> None:
    path = tmp_path / "Text" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_text("a note, no model")
    with pytest.raises(ModelMismatch, match=r"Text/1/model.onnx: it isn't an ONNX model"):
        OnnxServer(lambda _: path).metadata(ModelId("Text", 1))


def test_a_model_that_the_runtime_can_not_load_is_a_mismatch(tmp_path: Path) -> None:
    model = models.scaling(1.0)
    model.graph.node[0].op_type = "NoSuchOperator"
    path = models.save(tmp_path, "Odd", 1, model)
    with pytest.raises(ModelMismatch, match="NoSuchOperator"):
        OnnxServer(lambda _: path).metadata(ModelId("Odd", 1))


def test_an_element_type_that_arrays_lack_is_a_mismatch(tmp_path: Path) -> None:
    model = models.scaling(1.0)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
    model.graph.node[0].CopyFrom(onnx.helper.make_node("Identity", ["image"], ["prediction"]))
    path = models.save(tmp_path, "Odd", 1, model)
    with pytest.raises(ModelMismatch, match=r"'image' is a tensor\(bfloat16\)"):
        OnnxServer(lambda _: path).metadata(ModelId("Odd", 1))


def test_an_absent_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        OnnxServer(lambda _: tmp_path / "Odd" / "1" / "model.onnx").metadata(ModelId("Odd", 1))


def test_a_model_is_loaded_once(find_model: Callable[[ModelId], Path]) -> None:
    server = OnnxServer(find_model)
    assert server.metadata(SCALING) is server.metadata(SCALING)
    assert server.metadata(ModelId("Scaling", 3)) is server.metadata(ModelId("Scaling"))


def test_a_closed_server_loads_again(onnx_server: OnnxServer) -> None:
    first = onnx_server.metadata(SCALING)
    onnx_server.close()
    assert onnx_server.metadata(SCALING) is not first


def test_models_that_were_not_used_for_long_are_forgotten(tmp_path: Path) -> None:
    for version in range(1, 11):
        models.save(tmp_path, "Many", version, models.scaling(version))
    server = OnnxServer(lambda model: tmp_path / "Many" / str(model.version) / "model.onnx", threads=1)
    first = server.metadata(ModelId("Many", 1))
    last = [server.metadata(ModelId("Many", version)) for version in range(2, 11)][-1]
    assert server.metadata(ModelId("Many", 10)) is last
    assert server.metadata(ModelId("Many", 1)) is not first


def test_it_says_what_runs(onnx_server: OnnxServer) -> None:
    assert "on 1 CPUs" in onnx_server.check()


def test_a_missing_runtime_is_named_with_what_to_install(
    onnx_server: OnnxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match=r"pip install kiosk-redis-consumer\[onnx\]"):
        onnx_server.check()


def test_the_log_names_what_runs_the_model(onnx_server: OnnxServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="redis_consumer"):
        onnx_server.metadata(SCALING)
        onnx_server.metadata(SCALING)
    assert [record.getMessage() for record in caplog.records] == [
        "model Scaling:1: onnxruntime runs it by CPU on 1 CPUs"
    ]


def test_slots_share_the_cpus(find_model: Callable[[ModelId], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "usable_cpus", lambda: 6)
    assert "on 3 CPUs" in OnnxServer(find_model, slots=2).check()


def test_threads_share_one_session(onnx_server: OnnxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []

    def new_session(path: Path, *, threads: int) -> Any:
        loaded.append(path)
        return session.new_session(path, threads=threads)

    monkeypatch.setattr("redis_consumer.serving.onnx.server.new_session", new_session)
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(lambda value: onnx_server.predict(SCALING, {"image": IMAGE + value}), range(32)))
    assert len(loaded) == 1
    for value, output in enumerate(outputs):
        np.testing.assert_array_equal(output["prediction"], (IMAGE + value) * 2, strict=True)


TOO_LARGE_RUN = """
import sys
import numpy as np
from pathlib import Path
from redis_consumer.errors import ModelMismatch
from redis_consumer.job import ModelId
from redis_consumer.serving.onnx.server import OnnxServer

path, model = Path(sys.argv[1]), ModelId("Convolving")
server = OnnxServer(lambda _: path, threads=1, arena_bytes=4 * 2**20)
try:
    server.predict(model, {"image": np.zeros((2000, 32, 32, 2), np.float32)})
except ModelMismatch as error:
    print(error)
print(sorted(server.predict(model, {"image": np.zeros((1, 32, 32, 2), np.float32)})))
"""


def test_a_prediction_that_needs_too_much_memory_fails_in_words(find_model: Callable[[ModelId], Path]) -> None:
    # In a process of its own: there is one bound for all sessions of a process.
    command = [sys.executable, "-c", TOO_LARGE_RUN, str(find_model(ModelId("Convolving")))]
    error, outputs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "use smaller tiles or batches, or give the worker more memory" in error
    assert outputs.startswith("['features', ")


def test_values_that_are_no_numbers_are_a_mismatch(onnx_server: OnnxServer) -> None:
    with pytest.raises(ModelMismatch, match="'prediction': it holds NaN values"):
        onnx_server.predict(SCALING, {"image": IMAGE * np.float32(np.nan)})


LARGE_RUN = """
import subprocess
import sys
import numpy as np
from pathlib import Path
from redis_consumer.job import ModelId
from redis_consumer.models import ModelStore
from redis_consumer.serving.onnx.server import OnnxServer

def resident_mb(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

server, model = OnnxServer(ModelStore().find), ModelId("NuclearSegmentation")
(spec,) = server.metadata(model).inputs
server.predict(model, {spec.name: np.ones((1, 64, 64, 1), np.float32)})
before = resident_mb("VmRSS")
server.predict(model, {spec.name: np.ones((1, 1152, 1152, 1), np.float32)})
print(resident_mb("VmHWM") - before, resident_mb("VmRSS") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel doesn't tell what memory a process has")
def test_the_memory_of_a_large_run_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE_RUN], capture_output=True, text=True, check=True)
    peak_mb, kept_mb = map(float, done.stdout.split())
    assert kept_mb < peak_mb / 4


def test_servers_of_one_process_share_what_is_the_same_model(tmp_path: Path) -> None:
    paths = [models.save(tmp_path / name, "Scaling", 1, models.scaling(2.0)) for name in ("one", "other")]
    first, second = (OnnxServer(lambda _, path=path: path, threads=1) for path in paths)  # type: ignore[misc]
    assert first.metadata(SCALING) is second.metadata(SCALING)
    first.close()
    np.testing.assert_array_equal(second.predict(SCALING, {"image": IMAGE})["prediction"], IMAGE * 2)
    second.close()
