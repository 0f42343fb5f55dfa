"""Runs tests in a changed copy of the tree. Every process uses the copy, and none outlives the run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sysconfig
import venv
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import psutil

from redis_consumer.cli.embedded import SERVER_VARIABLE, find_redis_server

ROOT = Path(__file__).resolve().parents[1]
#: Seconds that one test, and all tests of one entry, may take; what a mutant hangs in is ended then.
TEST_LIMIT_S, LIMIT_S = 40.0, 120.0


class TableError(Exception):
    """An entry of the table doesn't fit the tree any more."""


@dataclass(frozen=True)
class Edit:
    """One replacement in a file of the tree.

    Attributes:
        file: path below the root.
        text: what stands there now.
        off: what stands there instead once the mechanism is switched off.
        count: how often the text has to be found.
    """

    file: str
    text: str
    off: str
    count: int = 1

    def applied(self, content: str) -> str:
        """Return the content of the file with the replacement.

        Raises:
            TableError: the text isn't there as often as wanted.
        """
        found = content.count(self.text)
        if found != self.count:
            raise TableError(f"{self.file}: found {found} times, wanted {self.count}: {self.text!r}; update its entry")
        return content.replace(self.text, self.off)


#: Tests wait for up to 90 s for what a mutant never does, and for its running job at the end: less will do.
IMPATIENCE = (
    Edit("tests/support/worker.py", "TIMEOUT_S = 90.0", "TIMEOUT_S = 15.0"),
    Edit(
        "tests/support/worker.py",
        "        process.terminate()\n",
        "        process.terminate()\n        time.sleep(0.3)\n        process.terminate()  # at once\n",
    ),
)


class Tree:
    """A copy of the working tree with a Python of its own, which takes the package from the copy.

    It does so in every process that it starts, whatever the environment that a test gives it.

    Args:
        folder: where to put it.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self._report = folder / "report.xml"
        self._log = folder / "pytest.log"
        # Any owner of the folder: the copy may be made by another user, as in CI.
        listed = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file():  # one that was deleted is listed still
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        venv.EnvBuilder(symlinks=True).create(folder / "env")
        self._python = folder / "env" / "bin" / "python"
        packages = next((folder / "env").glob("lib/python*/site-packages"))
        # In this order, so that the copy comes before what the real environment has of the package.
        lines = [str(self.root / "src"), f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"]
        (packages / "copy.pth").write_text("\n".join(lines) + "\n")
        foreign = ("COV", "PYTEST", "PYTHON")
        self._environment = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
        self._environment[SERVER_VARIABLE] = find_redis_server()
        self._check_import()
        self.edit(IMPATIENCE)

    def _check_import(self) -> None:
        command = [str(self._python), "-c", "import redis_consumer; print(redis_consumer.__file__)"]
        found = subprocess.run(command, check=True, capture_output=True, text=True, env=self._environment).stdout
        if not Path(found).is_relative_to(self.root):
            raise TableError(f"the package is imported from {found.strip()}, not from the copy")

    def edit(self, edits: Iterable[Edit]) -> dict[Path, str]:
        """Carry out replacements; give the contents that `restore` needs."""
        before: dict[Path, str] = {}
        for edit in edits:
            path = self.root / edit.file
            content = path.read_text(encoding="utf-8")
            before.setdefault(path, content)
            path.write_text(edit.applied(content), encoding="utf-8")
        return before

    @staticmethod
    def restore(before: dict[Path, str]) -> None:
        """Undo `edit`."""
        for path, content in before.items():
            path.write_text(content, encoding="utf-8")

    def run(self, tests: Sequence[str], limit_s: float = LIMIT_S) -> tuple[dict[str, str], str]:
        """Run tests for so many seconds at most; give how each of them ended, and what pytest wrote.

        One whose end isn't known, since all had to be ended, is ``hung``; one that never ran is absent.
        """
        self._report.unlink(missing_ok=True)
        options = ["-q", "--tb=short", "-p", "no:randomly", f"--timeout={TEST_LIMIT_S}", f"--junit-xml={self._report}"]
        command = [str(self._python), "-m", "pytest", *options, *(f"tests/{test}" for test in tests)]
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.root, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return dict.fromkeys(tests, "hung"), self._log.read_text(errors="replace")
            finally:
                end_session(process.pid)
                process.wait()
        return ends(self._report), self._log.read_text(errors="replace")


def end_session(session: int) -> None:
    """Kill every process of a session, workers and servers of tests too; slots have groups of their own."""
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == session:
                os.kill(process.pid, signal.SIGKILL)


def ends(report: Path) -> dict[str, str]:
    """Read how tests ended: ``failed``, ``passed``, or ``broken`` where their set-up or collection did.

    Of a test with several parameters one failure counts, as a developer sees it.
    """
    found: dict[str, str] = {}
    if not report.exists():
        return found
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
        path = case.get("classname", "").removeprefix("tests.").replace(".", "/")
        test = f"{path}.py::{case.get('name', '').partition('[')[0]}"
        kinds = {child.tag for child in case}
        end = "failed" if "failure" in kinds else "broken" if kinds & {"error", "skipped"} else "passed"
        found[test] = "failed" if "failed" in (end, found.get(test)) else end
    return found
