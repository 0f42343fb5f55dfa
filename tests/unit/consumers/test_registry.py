"""The class that a consumer type names is found, and errors on the way are reported to the author."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.consumers import Consumer, registry
from redis_consumer.consumers.image import ImageFileConsumer
from redis_consumer.errors import SettingsError
from redis_consumer.provenance import record

PACKAGE = "offered_counter"
SHORT, WHERE = f"{PACKAGE}:Counter", f"{PACKAGE}.consumer:Counter"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package whose entry point names the class by a shorter way than where it stands."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text(f"from {PACKAGE}.consumer import Counter as Counter\n")
    (folder / "consumer.py").write_text(
        "from redis_consumer.consumers import ImageFileConsumer\n\nclass Counter(ImageFileConsumer): pass\n"
    )
    info = tmp_path / f"{PACKAGE}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINT_GROUP}]\noffered-counter = {SHORT}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("named", ["offered-counter", SHORT, WHERE])
def test_a_class_is_known_by_each_of_its_names(named: str) -> None:
    assert registry.is_named(WHERE, [named])
    assert not registry.is_named(f"{PACKAGE}.consumer:Other", [named])
    assert not registry.is_named("other.consumer:Counter", [named])


@pytest.mark.usefixtures("package")
def test_a_package_is_told_by_its_version() -> None:
    found: Any = registry.find("offered-counter")
    assert record.origin(found, registry.ENTRY_POINT_GROUP) == {
        "origin": WHERE,
        "distribution": PACKAGE,
        "version": "1.2",
    }


def test_a_package_that_cannot_be_imported_names_no_class(package: Path) -> None:
    (package / "consumer.py").write_text("raise RuntimeError\n")
    assert not registry.is_named(WHERE, ["offered-counter"])


def test_what_a_library_complains_of_stands_in_the_authors_file(package: Path) -> None:
    (package / "consumer.py").write_text(
        "from redis_consumer.consumers import ConsumerOptions\n\nclass Options(ConsumerOptions):\n    area = 4\n"
    )
    with pytest.raises(SettingsError, match=rf"\({package / 'consumer.py'}, line 3\)$"):
        registry.find(SHORT)


def test_of_an_installed_package_the_deepest_file_is_told(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_LIBRARIES", (*registry._LIBRARIES, f"{tmp_path}{os.sep}"))
    (package / "helper.py").write_text("import json\njson.loads('')\n")
    (package / "consumer.py").write_text(f"from {PACKAGE} import helper\n")
    with pytest.raises(SettingsError, match=rf"\({package / 'helper.py'}, line 2\)$"):
        registry.find(SHORT)


def test_no_other_module_of_a_package_is_imported(package: Path) -> None:
    found: Any = registry.find(SHORT)
    (package / "heavy.py").write_text("raise SystemExit('needs a GPU')\n")
    points = package.parent / f"{PACKAGE}-1.2.dist-info" / "entry_points.txt"
    points.write_text(f"[{registry.ENTRY_POINT_GROUP}]\nabc = {PACKAGE}.heavy:Heavy\nxyz = {SHORT}\n")
    assert record.origin(found, registry.ENTRY_POINT_GROUP)["version"] == "1.2"


class Unlucky(ImageFileConsumer):
    def __init__(self, **kwargs: Any) -> None:
        raise ConnectionRefusedError


class Failing(ImageFileConsumer):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        raise RuntimeError("no weights")


class Bare(Consumer):
    def __init__(self, **kwargs: Any) -> None:
        """Passes nothing on."""

    def _consume(self, redis_hash: str) -> str:
        return self.final_status


def test_a_constructor_that_fails_is_told_with_file_and_line() -> None:
    arguments = {"redis_client": None, "storage_client": None, "queue": "predict"}
    with pytest.raises(SettingsError, match=r"Failing can't be made: .*RuntimeError: no weights \(.*test_registry.py"):
        registry.make_consumer(Failing, **arguments)
    with pytest.raises(ConnectionRefusedError):
        registry.make_consumer(Unlucky, **arguments)
    with pytest.raises(SettingsError, match=r"Bare can't be made: its constructor must call super\(\).__init__"):
        registry.make_consumer(Bare, **arguments)
