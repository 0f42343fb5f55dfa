from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from tools.mutant_tree import Edit, TableError, Tree, ends

JOBS = "unit/test_job.py::test_done_and_failed_are_final"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("tree"))


def test_an_edit_replaces_its_text() -> None:
    assert Edit("a.py", "x > 0", "True", count=2).applied("x > 0 and x > 0") == "True and True"


@pytest.mark.parametrize("content", ["", "x > 0 and x > 0"])
def test_an_edit_that_does_not_fit_is_refused(content: str) -> None:
    with pytest.raises(TableError, match=r"a.py: found \d times, wanted 1: 'x > 0'"):
        Edit("a.py", "x > 0", "True").applied(content)


def test_the_package_of_the_copy_is_tested(tree: Tree) -> None:
    before = tree.edit([Edit("src/redis_consumer/job.py", 'DONE = "done"', 'DONE = "ready"')])
    changed, log = tree.run([JOBS])
    tree.restore(before)
    assert changed == {JOBS: "failed"}, log
    assert tree.run([JOBS])[0] == {JOBS: "passed"}


def test_a_test_that_does_not_run_has_no_end(tree: Tree) -> None:
    assert tree.run(["unit/test_job.py::test_nothing"])[0].get("unit/test_job.py::test_nothing") is None


def test_tests_that_hang_are_ended(tree: Tree) -> None:
    assert tree.run([JOBS], 0.05)[0] == {JOBS: "hung"}
    assert not any(_is_below(process, tree.root) for process in psutil.process_iter())


def _is_below(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder) and process.pid != os.getpid()
    except (psutil.Error, OSError):
        return False


def test_ends_are_read_by_test(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="tests.unit.test_a" name="test_one[x]"><failure/></testcase>'
        '<testcase classname="tests.unit.test_a" name="test_one[y]"/>'
        '<testcase classname="tests.unit.test_a" name="test_two"/>'
        '<testcase classname="tests.unit.test_a" name="test_three"><error/></testcase>'
        '<testcase classname="tests.unit.test_a" name="test_four"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    found = {name.partition("::test_")[2]: end for name, end in ends(report).items()}
    assert found == {"one": "failed", "two": "passed", "three": "broken", "four": "broken"}
    assert "unit/test_a.py::test_one" in ends(report)


def test_no_report_has_no_ends(tmp_path: Path) -> None:
    assert ends(tmp_path / "report.xml") == {}
