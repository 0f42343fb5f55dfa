"""The tables in the committed pages: the same as those that the code gives now."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import write_pages

from support.documents import name_of

PAGES = dict(write_pages.pages())


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_a_page_fits_the_code(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path], "run make docs"


def test_each_table_is_on_a_page() -> None:
    text = "".join(PAGES.values())
    assert [name for name in write_pages.TABLES if f".. generated: {name}\n" not in text] == []


def test_an_old_table_is_replaced_and_the_text_around_it_stays() -> None:
    mark = ".. generated: kiosk-variables\n   REDIS_PORT: The same\n"
    renewed = write_pages.renewed(f"Before\n\n{mark}\nold\n\n.. end of generated\n\nAfter\n")
    assert renewed.startswith(f"Before\n\n{mark}\n.. list-table::\n")
    assert renewed.endswith("     - The same\n\n.. end of generated\n\nAfter\n")
    assert "old" not in renewed
    assert write_pages.renewed(renewed) == renewed


@pytest.mark.parametrize("text", [".. generated: nothing\n\n.. end of generated\n", ".. generated: settings\n\n"])
def test_a_mark_without_table_or_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="generated|named"):
        write_pages.renewed(text)


def test_check_only_lists_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.rst"
    old = ".. generated: kiosk-variables\n   REDIS_PORT: The same\n\n.. end of generated\n"
    page.write_text(old)
    monkeypatch.setattr(write_pages, "DOCS", tmp_path)
    assert write_pages.main(["--check"]) == 1
    assert "run make docs" in capsys.readouterr().err
    assert page.read_text() == old
    assert write_pages.main([]) == 0
    assert write_pages.main(["--check"]) == 0
