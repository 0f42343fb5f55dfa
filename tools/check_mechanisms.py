"""Checks that each test of a fault fails once the mechanism that it tests is switched off. Exits 1 if one doesn't.

The table is ``mechanisms.toml``. Each entry's edits are made in a copy of the tree. Then the named tests run there, and
every one of them has to fail. A test that any change would break shows nothing. So all of them have to pass in the
unchanged copy, and one job still has to run to its end with each change.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools.mutant_tree import LIMIT_S, ROOT, Edit, TableError, Tree

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = Path(__file__).with_name("mechanisms.toml")
#: One job from claim to end, in the test's own process and in a worker; these pass whatever mechanism is off.
CONTROL = "integration/test_consumer.py::test_a_returned_final_status_completes_the_job"
WORKER_CONTROL = "integration/test_slot_loop.py::test_names_that_are_not_utf8_stop_nobody"
#: Seconds for one of many tests that run one after the other.
SHARE_S = 10.0


@dataclass(frozen=True)
class Mechanism:
    """One entry of the table.

    Attributes:
        name: how ``--only`` calls it.
        row: row of the fault table in ``docs/reliability.rst``, its bold words.
        what: what the mechanism does.
        tests: ids below ``tests/``, each of which has to fail without it.
        edits: what switches it off.
    """

    name: str
    row: str
    what: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]

    @property
    def control(self) -> str:
        """The test that has to pass even so."""
        is_of_worker = any("/worker/" in edit.file for edit in self.edits)
        return WORKER_CONTROL if is_of_worker else CONTROL


@dataclass(frozen=True)
class Verdict:
    """The result of one entry.

    Attributes:
        name: of the entry, as are `row` and `what`.
        caught_by: the tests that failed.
        missed_by: those that passed, or didn't run.
        is_sound: whether the control passed.
        seconds: how long it took.
        log: what pytest wrote.
    """

    name: str
    row: str
    what: str
    caught_by: list[str]
    missed_by: list[str]
    is_sound: bool
    seconds: float
    log: str = field(repr=False)

    @property
    def is_caught(self) -> bool:
        """Whether each test failed, and nothing but them."""
        return self.is_sound and not self.missed_by

    def __str__(self) -> str:
        title = f"{self.row}: {self.what} [{self.name}]"
        if not self.is_sound:
            return f"BROKEN      {title}: no job ends any more; switch off less"
        if self.missed_by:
            return f"NOT CAUGHT  {title} by {', '.join(self.missed_by)}"
        return f"caught      {title} by {', '.join(self.caught_by)}"


def read_table(path: Path = TABLE) -> list[Mechanism]:
    """Read the entries."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["mechanism"]
    return [
        Mechanism(**{**entry, "tests": tuple(entry["tests"]), "edits": tuple(Edit(**edit) for edit in entry["edits"])})
        for entry in entries
    ]


def check_edits(mechanisms: Sequence[Mechanism]) -> None:
    """Look whether each edit fits the tree.

    Raises:
        TableError: one doesn't, with the name of its entry.
    """
    for mechanism in mechanisms:
        contents: dict[str, str] = {}
        for edit in mechanism.edits:
            content = contents.get(edit.file) or (ROOT / edit.file).read_text(encoding="utf-8")
            try:
                contents[edit.file] = edit.applied(content)
            except TableError as error:
                raise TableError(f"{mechanism.name}: {error}") from error


def judge(tree: Tree, mechanism: Mechanism) -> Verdict:
    """Switch one mechanism off and see which tests notice."""
    started = time.monotonic()
    before = tree.edit(mechanism.edits)
    try:
        end, log = tree.run([mechanism.control, *mechanism.tests])
    finally:
        tree.restore(before)
    caught = [test for test in mechanism.tests if end.get(test) in ("failed", "hung")]
    missed = [test for test in mechanism.tests if test not in caught]
    return Verdict(
        mechanism.name,
        mechanism.row,
        mechanism.what,
        caught,
        missed,
        is_sound=end.get(mechanism.control) in ("passed", "hung"),
        seconds=round(time.monotonic() - started, 1),
        log=log,
    )


class Check:
    """All entries, on a few trees side by side.

    Args:
        mechanisms: what to check.
        folder: where the trees are made.
        count: how many.
        is_quiet: print no line for each entry.
    """

    def __init__(self, mechanisms: Sequence[Mechanism], folder: Path, count: int, *, is_quiet: bool) -> None:
        self._mechanisms = mechanisms
        self._is_quiet = is_quiet
        self._trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()
        self._count = count
        for number in range(count):
            self._trees.put(Tree(folder / str(number)))

    def unchanged(self) -> str:
        """Run the tests of all entries with nothing switched off; give pytest's words on those that don't pass."""
        tests = sorted({test for each in self._mechanisms for test in (each.control, *each.tests)})
        with ThreadPoolExecutor(self._count) as pool:
            shares = [share for start in range(self._count) if (share := tests[start :: self._count])]
            logs = list(pool.map(self._run_unchanged, shares))
        return "\n".join(filter(None, logs))

    def _run_unchanged(self, tests: Sequence[str]) -> str:
        tree = self._trees.get()
        end, log = tree.run(tests, LIMIT_S + SHARE_S * len(tests))
        self._trees.put(tree)
        return "" if all(end.get(test) == "passed" for test in tests) else log

    def verdicts(self) -> list[Verdict]:
        """Judge every entry, in the order of the table."""
        with ThreadPoolExecutor(self._count) as pool:
            return list(pool.map(self._judge, self._mechanisms))

    def _judge(self, mechanism: Mechanism) -> Verdict:
        tree = self._trees.get()
        try:
            verdict = judge(tree, mechanism)
        finally:
            self._trees.put(tree)
        if not self._is_quiet:
            print(verdict, flush=True)
        return verdict


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Switch off each mechanism and see its tests fail.")
    parser.add_argument("--only", action="append", metavar="NAME", help="check this entry only; may be repeated")
    parser.add_argument("--list", action="store_true", help="name the entries and end")
    parser.add_argument("--json", action="store_true", help="write one JSON object instead of lines")
    parser.add_argument("--table", type=Path, default=TABLE, help="another table")
    parser.add_argument("--jobs", type=int, default=4, help="entries to check side by side; most of them wait")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Check the table; 0 if all is caught, 1 where something isn't, 2 where the table doesn't fit the tree."""
    given = arguments(words)
    mechanisms = read_table(given.table)
    unknown = set(given.only or ()) - {each.name for each in mechanisms}
    mechanisms = [each for each in mechanisms if not given.only or each.name in given.only]
    if given.list:
        for each in mechanisms:
            print(f"{each.name:24} {each.row}: {each.what}")
        return 0
    try:
        if unknown:
            raise TableError(f"{given.table.name}: no entry {', '.join(sorted(unknown))}; --list names them")
        check_edits(mechanisms)
        with tempfile.TemporaryDirectory() as folder:
            return report(Check(mechanisms, Path(folder), given.jobs, is_quiet=given.json), is_json=given.json)
    except TableError as error:
        print(error, file=sys.stderr)
        return 2


def report(check: Check, *, is_json: bool) -> int:
    """Run the check and print its result; return the exit code."""
    started = time.monotonic()
    if log := check.unchanged():
        print(f"{log}\nthese tests have to pass while nothing is switched off", file=sys.stderr)
        return 1
    verdicts = check.verdicts()
    missed = [verdict for verdict in verdicts if not verdict.is_caught]
    for verdict in missed:
        print(f"--- {verdict.name}\n{verdict.log[-3000:]}", file=sys.stderr)
    numbers: dict[str, Any] = {"mechanisms": len(verdicts), "caught": len(verdicts) - len(missed)}
    numbers["seconds"] = round(time.monotonic() - started, 1)
    if is_json:
        rows = [{name: value for name, value in asdict(each).items() if name != "log"} for each in verdicts]
        print(json.dumps({**numbers, "verdicts": rows}))
    else:
        print("{caught} of {mechanisms} mechanisms are caught, in {seconds} s".format(**numbers))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
