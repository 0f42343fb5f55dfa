"""Valid object keys, and the local path of each."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_consumer.errors import InvalidJob
from redis_consumer.storage.keys import check_key, content_type, local_path, output_key

HOSTILE = st.text(st.sampled_from("./\\a~%:\0\n é"), max_size=30)
ANY_TEXT = st.text(st.characters(), max_size=400) | HOSTILE


@given(ANY_TEXT)
def test_any_key_stays_in_its_folder_or_is_refused(text: str) -> None:
    try:
        path = local_path(check_key(text), "/job/down")
    except InvalidJob:
        return
    assert os.path.normpath(path) == path
    assert path.startswith("/job/down/")


@given(ANY_TEXT, ANY_TEXT)
def test_any_upload_stays_below_output_or_is_refused(name: str, subdir: str) -> None:
    try:
        key = output_key("/job/" + name, subdir)
    except InvalidJob:
        return
    assert key.startswith("output/")
    assert os.path.normpath(key) == key


@given(ANY_TEXT)
def test_a_checked_key_passes_again(text: str) -> None:
    try:
        key = check_key(text)
    except InvalidJob:
        return
    assert check_key(key) == key


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("uploads/a/b.tif", "/down/a/b.tif"),
        ("uploads/b.tif", "/down/b.tif"),
        ("b.tif", "/down/b.tif"),
        ("output/0123/folder/b.tif", "/down/0123/folder/b.tif"),
    ],
)
def test_the_first_part_of_a_key_is_dropped(key: str, path: str) -> None:
    assert local_path(key, "/down") == path


@pytest.mark.parametrize(
    ("subdir", "key"),
    [
        (None, "output/a.zip"),
        ("", "output/a.zip"),
        ("plate", "output/plate/a.zip"),
        ("/plate/1", "output/plate/1/a.zip"),
        ("plate/", "output/plate/a.zip"),
    ],
)
def test_upload_keys(subdir: str | None, key: str) -> None:
    assert output_key("/tmp/job/a.zip", subdir) == key


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "is empty"),
        ("uploads/", "names a folder"),
        ("uploads//a", "an empty part"),
        ("a/../b", "as a part"),
        ("a\\b", "a backslash"),
        ("a\tb", "a control character"),
        ("a" * 256, "longer than"),
        ("\ud800", "isn't valid Unicode"),
    ],
)
def test_a_refusal_names_field_value_and_problem(key: str, problem: str) -> None:
    with pytest.raises(InvalidJob, match=rf"field input_file_name: .*{problem}.*; give a key such as"):
        check_key(key, "field input_file_name")


def test_a_name_of_the_longest_length_passes() -> None:
    assert check_key("uploads/" + "é" * 127) == "uploads/" + "é" * 127


@pytest.mark.parametrize(
    ("key", "media_type"),
    [
        ("output/a.zip", "application/zip"),
        ("a.TIF", "image/tiff"),
        ("a.png", "image/png"),
        ("a.json", "application/json"),
        ("a.csv", "text/csv"),
        ("a.jpg", "image/jpeg"),
        ("a", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
    ],
)
def test_content_types(key: str, media_type: str) -> None:
    assert content_type(key) == media_type
