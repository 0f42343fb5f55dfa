"""All consumers are listed, with their origin and their errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from redis_consumer.consumers.catalogue import Listed, describe, list_consumers
from redis_consumer.errors import SettingsError

COUNTING = '''
from pydantic import Field
from redis_consumer.consumers import Consumer, ConsumerOptions


class Counting(Consumer):
    """Counts nuclei.

    All of them.
    """

    class Options(ConsumerOptions):
        min_size: int = Field(default=10, description="Pixels")

    def _consume(self, redis_hash):
        return self.final_status
'''


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with two entry points, as pip would lay it down."""
    folder = tmp_path / "cataloguing-1.2.dist-info"
    folder.mkdir()
    (tmp_path / "cataloguing.py").write_text(COUNTING)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: cataloguing\nVersion: 1.2\n")
    (folder / "entry_points.txt").write_text(
        "[redis_consumer.consumers]\ncount = cataloguing:Counting\nlost = cataloguing:Countin\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def by_name(*paths: str) -> dict[str, Listed]:
    return {listed.name: listed for listed in list_consumers(paths)}


def test_built_in_ones_and_those_of_packages_are_listed() -> None:
    found = by_name()
    assert list(found) == [
        "image",
        "zip",
        "segmentation",
        "mesmer",
        "multiplex",
        "spot",
        "polaris",
        "tracking",
        "caliban",
        "count",
        "lost",
    ]
    assert (found["image"].origin, found["image"].path) == (
        "built in",
        "redis_consumer.consumers.image:ImageFileConsumer",
    )
    assert (found["count"].origin, found["count"].help) == ("cataloguing 1.2", "Counts nuclei.")
    assert all(listed.help for listed in found.values() if not listed.error)


def test_a_broken_one_is_listed_with_the_reason() -> None:
    lost = by_name()["lost"]
    assert lost.origin == "cataloguing 1.2"
    assert "module 'cataloguing' has no attribute 'Countin'; did you mean Counting?" in lost.error


def test_an_import_path_is_listed_once() -> None:
    found = by_name("cataloguing:Counting", "cataloguing:Counting")
    assert found["cataloguing:Counting"].origin == "import path"


def test_one_is_described_with_its_options() -> None:
    listed = describe("Count")
    assert [(option.name, option.default) for option in listed.options] == [("min_size", "10")]


@pytest.mark.parametrize("name", ["lost", "cataloguing:Nothing"])
def test_one_that_can_not_be_run_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f'^Invalid `consumer_type`: "{name}"'):
        describe(name)


def test_a_file_that_has_the_name_of_another_module_is_to_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "colorsys.py").write_text(COUNTING)
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(SettingsError, match="colorsys.py isn't it, since Python has another module.*rename the file"):
        describe("colorsys:Counting")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("import os\nimport not_there\n", "No module named 'not_there' (.*failing_1.py, line 2)"),
        ("def half(:\n", "SyntaxError: .*failing_2.py, line 1"),
        ("\n\n1 / 0\n", "ZeroDivisionError: division by zero (.*failing_3.py, line 3)"),
        ("\nraise SystemExit('no licence')\n", "SystemExit: no licence (.*failing_4.py, line 2)"),
        ("def __getattr__(name):\n    import not_there\n", "No module named 'not_there' (.*failing_5.py, line 2)"),
    ],
)
def test_an_error_of_the_authors_module_says_where(
    tmp_path: Path, request: pytest.FixtureRequest, text: str, where: str
) -> None:
    name = where[where.index("failing") :].partition(".")[0]
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(SettingsError, match=where.replace("(", r"\(").rstrip(")")):
        describe(f"{name}:Any")
