"""Counts what a reader of the source has to remember, and what one job executes.

Run ``python -m tools.count_house`` at the root of the repository; ``--json`` prints one JSON object.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import itertools
import json
import math
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import redis
import typer

from redis_consumer.consumers import Consumer
from redis_consumer.worker.shared_status import SupervisorPipe

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "redis_consumer"
MOST_MODULES = 20
MOST_COMPLEX = 12
AUTHOR_CLASSES = ("Consumer", "TensorFlowServingConsumer", "ImageFileConsumer")
_LAST = "last command of the count"
_BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension, ast.match_case)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def count() -> dict[str, Any]:
    """Count files, classes, imports, depths and names of the package, then run two jobs and count what they execute.

    Returns:
        ``files`` and ``classes`` of the package, generated messages left out; ``lazy_imports``: imports of ours inside
        functions or for types only; ``large_folders``: those with more than 20 modules; ``depth``: of inheritance,
        of our classes only; ``complex_functions``: with more than 12 paths; ``author_names``: public names of each
        class that authors derive from; ``trivial_files``, ``trivial_lua``, ``image_files``: what one job executes
        from its claim on; ``stack_depth``: frames of ours from the worker's loop to the model.
    """
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if "_pb" not in path.parts]
    trees = {path: ast.parse(path.read_text()) for path in paths}
    nodes = [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]
    folders = Counter(path.parent for path in paths if path.name != "__init__.py")
    return {
        "files": len(paths),
        "classes": sum(isinstance(node, ast.ClassDef) for _, node in nodes),
        "lazy_imports": sum(_count_lazy(tree) for tree in trees.values()),
        "large_folders": sorted(folder.name for folder, modules in folders.items() if modules > MOST_MODULES),
        "depth": max(_depth(cls) for cls in _own_classes(paths)),
        "complex_functions": sorted(
            f"{path.relative_to(PACKAGE)}:{node.name}"
            for path, node in nodes
            if isinstance(node, _FUNCTIONS) and _complexity(node) > MOST_COMPLEX
        ),
        "author_names": [_public_names(name) for name in AUTHOR_CLASSES],
        **_run_jobs(),
    }


def _count_lazy(tree: ast.AST) -> int:
    """Imports of ours that don't run when the module is loaded."""
    blocks: list[ast.AST] = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)]
    blocks += [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    found = {id(node): node for block in blocks for node in ast.walk(block) if _is_import_of_ours(node)}
    return len(found)


def _is_import_of_ours(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] == PACKAGE.name
    return isinstance(node, ast.Import) and any(alias.name.split(".")[0] == PACKAGE.name for alias in node.names)


def _complexity(function: ast.AST) -> int:
    """Paths through a function as McCabe counts them; functions inside of it count by themselves."""
    total, waiting = 1, list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            continue
        total += isinstance(node, _BRANCHES)
        total += len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0
        waiting += ast.iter_child_nodes(node)
    return total


def _own_classes(paths: list[Path]) -> Iterator[type]:
    for path in paths:
        if path.name == "__main__.py":
            continue
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ == module.__name__:
                yield cls


def _depth(cls: type) -> int:
    """How many of our classes stand above one another in a class, itself among them; exceptions are left out."""
    if issubclass(cls, BaseException):
        return 0
    above = [_depth(base) for base in cls.__bases__ if base.__module__.split(".")[0] == PACKAGE.name]
    return 1 + max(above, default=0)


def _public_names(name: str) -> int:
    cls = getattr(importlib.import_module("redis_consumer.consumers"), name)
    return sum(not each.startswith("_") for each in dir(cls))


def _run_jobs() -> dict[str, Any]:
    """Run a trivial job and one of an image, each as a worker's slot runs it, on an embedded Redis."""
    from redis_consumer.cli import embedded

    with embedded.run_redis() as server, tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "REDIS_HOST": server.host,
            "REDIS_PORT": str(server.port),
            "REDIS_PASSWORD": server.password,
            "STORAGE_BUCKET": Path(folder).as_uri(),
            "MODEL_SERVER": "onnx://",
            "NUCLEAR_MODEL": "NuclearSegmentation:1",
            "HOSTNAME": "counted",
        }
        uploads = Path(folder, "uploads")
        uploads.mkdir()
        (uploads / "nuclei.tif").write_bytes((ROOT / "data" / "nuclei.tif").read_bytes())
        trivial = _run_one(server, f"{__name__}:Trivial")
        image = _run_one(server, "image")
    return {
        "trivial_files": len(trivial.files),
        "trivial_lua": len(_lua_files(trivial.scripts)),
        "image_files": len(image.files),
        "stack_depth": image.depth,
    }


class _Record:
    """Files of ours that were executed, scripts that Redis ran, and the deepest stack where the model ran."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.scripts: set[str] = set()
        self.depth = 0

    def note(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Record a call; for `sys.setprofile`."""
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(str(PACKAGE)) and frame.f_code.co_name != "<module>":
            self.files.add(name)
        elif event == "call" and "onnxruntime" in name and frame.f_code.co_name.startswith("run"):
            self.depth = max(self.depth, _asking_frames(frame))


class Trivial(Consumer):
    """Does nothing."""

    def _consume(self, redis_hash: str) -> str:
        self.update_key(redis_hash, {"status": "done"})
        return "done"


class _NoSupervisor(SupervisorPipe):
    """Reports to no supervisor: that is another process, and does no part of the job."""

    def __init__(self) -> None:
        pass

    def wait_for_start(self, consumer: str) -> None:
        """Start at once."""

    def report(self, job: Any) -> None:
        """Renew nothing: the job takes a moment."""

    def pause(self, reason: str) -> None:
        """Report nothing."""


@contextmanager
def _scripts_of(server: Any) -> Iterator[set[str]]:
    """Collect the digests of the scripts that Redis runs in the block."""
    digests: set[str] = set()
    connection = redis.Redis(
        server.host, server.port, password=server.password, decode_responses=True, socket_timeout=30
    )
    with connection.monitor() as monitor:  # type: ignore[no-untyped-call]
        reader = threading.Thread(target=_read_scripts, args=(monitor, digests), daemon=True)
        reader.start()
        yield digests
        connection.echo(_LAST)
        reader.join(10)
    connection.close()


def _read_scripts(monitor: Any, digests: set[str]) -> None:
    for entry in monitor.listen():
        verb, _, rest = str(entry["command"]).partition(" ")
        if verb.upper() == "EVALSHA":
            digests.add(rest.split()[0])
        if _LAST in rest:
            return


def _lua_files(digests: set[str]) -> set[str]:
    """Names of the files that scripts with these digests are put together from."""
    files = {path.name: path.read_bytes() for path in PACKAGE.rglob("*.lua")}
    found: set[str] = set()
    for count in (1, 2, 3):
        for names in itertools.permutations(files, count):
            text = b"".join(files[name] for name in names)
            if hashlib.sha1(text, usedforsecurity=False).hexdigest() in digests:
                found.update(names)
    return found


def _asking_frames(frame: FrameType) -> int:
    """Frames of ours in this thread or in the main one, whichever has more: one waits for the other."""
    main = sys._current_frames()[threading.main_thread().ident or 0]
    return max(_own_frames(frame), _own_frames(main))


def _own_frames(frame: FrameType | None) -> int:
    depth = 0
    while frame is not None:
        depth += frame.f_code.co_filename.startswith(str(PACKAGE))
        frame = frame.f_back
    return depth


def _run_one(server: Any, consumer_type: str) -> _Record:
    from redis_consumer import settings
    from redis_consumer.consumers import defaults, registry
    from redis_consumer.worker.slot_loop import SlotLoop

    settings.use(settings.load_settings())
    client = defaults.redis_client(deadline_s=5.0)
    client.hset("predict:a:1", mapping={"status": "new", "input_file_name": "uploads/nuclei.tif", "scale": "0.5"})
    client.lpush("predict", "predict:a:1")
    consumer = registry.make_consumer(consumer_type, **defaults.parts("predict"))
    loop = SlotLoop(consumer, _NoSupervisor(), is_burst=True)
    loop._clean_up_at = math.inf  # it removes what other jobs left, at random times
    record = _Record()
    claimed = consumer.job_queue.claim

    def claim(timeout_s: float = 0.0) -> Any:
        sys.setprofile(record.note)
        threading.setprofile(record.note)
        return claimed(timeout_s)

    consumer.job_queue.claim = claim  # type: ignore[method-assign]
    with _scripts_of(server) as record.scripts:
        try:
            loop.run()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    if client.hget("predict:a:1", "status") != "done":
        raise RuntimeError(f"{consumer_type}: {client.hget('predict:a:1', 'reason')}")
    return record


def main(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Print the counts as a table."""
    counts = count()
    if as_json:
        typer.echo(json.dumps(counts))
        return
    for name, value in counts.items():
        shown = " / ".join(map(str, value)) if isinstance(value, list) else value
        typer.echo(f"{name:20} {shown or 'none'}")


if __name__ == "__main__":
    typer.run(main)
