"""The counts of the source: what they leave out and what they add up."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest
from tools import count_house


def test_imports_of_ours_in_functions_and_for_types_are_lazy() -> None:
    tree = ast.parse(
        "import redis_consumer.job\n"
        "if TYPE_CHECKING:\n    from redis_consumer.redis import RedisClient\n    import numpy\n"
        "def run():\n    from redis_consumer.queue import JobQueue\n    import json\n"
    )
    assert count_house._count_lazy(tree) == 2


@pytest.mark.parametrize(
    ("body", "paths"),
    [("pass", 1), ("if a and b:\n  pass\n elif c:\n  pass", 4), ("def inner():\n  if a:\n   pass", 1)],
)
def test_paths_are_counted_as_mccabe_does_and_inner_functions_by_themselves(body: str, paths: int) -> None:
    assert count_house._complexity(ast.parse(f"def f():\n {body}\n").body[0]) == paths


def test_the_depth_of_a_class_counts_ours_only() -> None:
    from redis_consumer.consumers import Consumer

    above = [each for each in Consumer.__mro__ if each.__module__.startswith("redis_consumer")]
    assert 1 <= count_house._depth(Consumer) <= len(above)
    assert count_house._depth(type("Mine", (dict,), {"__module__": "mine"})) == 1


@pytest.mark.slow
def test_the_command_counts_the_tree_and_what_a_job_executes() -> None:
    # In a process of its own: the settings that it uses are those of a whole process.
    command = [sys.executable, "-m", "tools.count_house", "--json"]
    counts = json.loads(subprocess.check_output(command, cwd=count_house.ROOT, timeout=300))
    assert counts["files"] > 100
    assert 5 <= counts["trivial_files"] < counts["image_files"] < counts["files"]
    assert counts["trivial_lua"] >= 2
    assert counts["stack_depth"] >= 3
