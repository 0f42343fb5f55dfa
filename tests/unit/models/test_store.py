from __future__ import annotations

import logging
import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from redis_consumer.errors import InvalidJob, ModelMismatch, ModelNotFound, ObjectNotFound
from redis_consumer.job import ModelId
from redis_consumer.models import Card, ModelStore, packaged_models, store
from redis_consumer.models.store import SUMS_FILE, is_intact, write_sums
from redis_consumer.storage import Storage

Put = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "bucket"
    path.mkdir()
    return path


@pytest.fixture
def bucket(folder: Path) -> Storage:
    return Storage(folder.as_uri())


@pytest.fixture(autouse=True)
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that holds the model Packaged in two versions, each with a card."""
    path = tmp_path / "package"
    for version in (1, 10):
        put(path, f"Packaged/{version}/model.onnx", f"packaged {version}")
        put(path, f"Packaged/{version}/card.toml", f'description = "packaged {version}"')
    monkeypatch.setattr(store, "PACKAGED", path)
    return path


def put(folder: Path, key: str, text: str = "model") -> None:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_model_of_the_bucket_is_downloaded(folder: Path, bucket: Storage, tmp_path: Path) -> None:
    put(folder, "models/Nuclei/2/model.onnx", "the model")
    path = ModelStore(bucket, tmp_path / "cache").find(ModelId("Nuclei", 2))
    assert path == tmp_path / "cache" / "Nuclei" / "2" / "model.onnx"
    assert path.read_text() == "the model"
    assert sorted(path.parents[1].iterdir()) == [path.parent]


def test_weights_beside_the_model_are_downloaded_too(folder: Path, bucket: Storage) -> None:
    put(folder, "models/Nuclei/2/model.onnx")
    put(folder, "models/Nuclei/2/model.onnx.data", "weights")
    models = ModelStore(bucket)
    path = models.find(ModelId("Nuclei", 2))
    assert (path.parent / "model.onnx.data").read_text() == "weights"


def test_a_model_is_downloaded_once_and_for_other_stores_too(folder: Path, bucket: Storage, tmp_path: Path) -> None:
    put(folder, "models/Nuclei/2/model.onnx", "first")
    first = ModelStore(bucket, tmp_path / "cache").find(ModelId("Nuclei", 2))
    put(folder, "models/Nuclei/2/model.onnx", "second")
    again = ModelStore(bucket, tmp_path / "cache").find(ModelId("Nuclei", 2))
    assert again == first
    assert again.read_text() == "first"


def test_the_usual_cache_ends_with_the_store(folder: Path, bucket: Storage) -> None:
    put(folder, "models/Nuclei/2/model.onnx")
    models = ModelStore(bucket)
    path = models.find(ModelId("Nuclei", 2))
    models.close()
    assert not path.exists()


def test_version_0_is_the_highest_number_that_has_an_onnx_file(folder: Path, bucket: Storage) -> None:
    for name in ("9", "10", "0", "latest", "x11"):
        put(folder, f"models/Nuclei/{name}/model.onnx", name)
    put(folder, "models/Nuclei/12/saved_model.pb")
    assert ModelStore(bucket).find(ModelId("Nuclei")).read_text() == "10"


def test_a_new_version_is_noticed_once_the_old_answer_expires(folder: Path, bucket: Storage) -> None:
    put(folder, "models/Nuclei/1/model.onnx", "1")
    believing, asking = ModelStore(bucket, expire_s=3600), ModelStore(bucket, expire_s=0)
    assert {models.find(ModelId("Nuclei")).read_text() for models in (believing, asking)} == {"1"}
    put(folder, "models/Nuclei/2/model.onnx", "2")
    assert believing.find(ModelId("Nuclei")).read_text() == "1"
    assert asking.find(ModelId("Nuclei")).read_text() == "2"


@pytest.mark.parametrize(("version", "text"), [(1, "packaged 1"), (0, "packaged 10")])
def test_what_the_bucket_lacks_is_taken_from_the_package(
    bucket: Storage, version: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    models = ModelStore(bucket)
    with caplog.at_level(logging.INFO):
        assert [models.find(ModelId("Packaged", version)).read_text() for _ in range(2)] == [text, text]
    assert len([record for record in caplog.records if "packaged model is used" in record.message]) == 1


@pytest.mark.parametrize("version", [0, 1])
def test_the_bucket_goes_before_the_package(folder: Path, bucket: Storage, version: int) -> None:
    put(folder, "models/Packaged/1/model.onnx", "of the bucket")
    assert ModelStore(bucket).find(ModelId("Packaged", version)).read_text() == "of the bucket"


def test_without_a_bucket_the_package_is_all_there_is() -> None:
    assert ModelStore().find(ModelId("Packaged", 1)).read_text() == "packaged 1"
    with pytest.raises(ModelNotFound, match="there are models Packaged"):
        ModelStore().find(ModelId("Nuclei", 1))


@pytest.fixture
def _packaged_for_nuclei(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PACKAGED_FOR", {"Packaged": "Packaged", "Nuclei": "Packaged"})


@pytest.mark.usefixtures("_packaged_for_nuclei")
def test_the_newest_packaged_model_stands_in_for_one_of_the_settings_that_is_nowhere(
    bucket: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    models = ModelStore(bucket)
    for _ in range(2):
        assert models.or_packaged(ModelId("Nuclei", 6)) == ModelId("Packaged", 10)
    assert caplog.messages == ["model Nuclei:6 of the settings: not in the bucket; the packaged Packaged:10 is used"]


@pytest.mark.usefixtures("_packaged_for_nuclei")
@pytest.mark.parametrize(
    "model",
    [
        pytest.param(ModelId("Packaged", 1), id="packaged"),
        pytest.param(ModelId("Nuclei", 3), id="in the bucket"),
        pytest.param(ModelId("Nuclei"), id="highest in the bucket"),
        pytest.param(ModelId("Cells", 5), id="none is packaged for it"),
        pytest.param(ModelId("Nuclei", label="stable"), id="a label of a model server"),
    ],
)
def test_no_other_model_of_the_settings_is_replaced(folder: Path, bucket: Storage, model: ModelId) -> None:
    put(folder, "models/Nuclei/3/model.onnx")
    assert ModelStore(bucket).or_packaged(model) == model


def test_an_unknown_version_is_refused_with_those_there_are(folder: Path, bucket: Storage) -> None:
    put(folder, "models/Packaged/3/model.onnx")
    with pytest.raises(ModelNotFound, match=r"model Packaged:2: .*there are versions 1, 3, 10") as caught:
        ModelStore(bucket).find(ModelId("Packaged", 2))
    assert caught.value.model == "Packaged:2"


def test_an_unknown_model_is_refused_with_those_there_are(folder: Path, bucket: Storage) -> None:
    put(folder, "models/Nuclei/3/model.onnx")
    with pytest.raises(ModelNotFound, match="there are models Nuclei, Packaged"):
        ModelStore(bucket).find(ModelId("Cells"))


@pytest.mark.parametrize("name", ["../Nuclei", "", "a/b", ".hidden"])
def test_a_name_that_leads_elsewhere_is_refused(bucket: Storage, name: str) -> None:
    with pytest.raises(InvalidJob, match="model_name"):
        ModelStore(bucket).find(ModelId(name, 1))


def test_a_model_that_vanishes_while_it_is_fetched_is_not_found(bucket: Storage) -> None:
    class Vanishing:
        exists = staticmethod(lambda key: key.endswith("model.onnx"))
        list_folders = staticmethod(bucket.list_folders)

        @staticmethod
        def download_file(key: str, path: Path) -> None:
            raise ObjectNotFound(f"object {key}: gone", key=key)

    with pytest.raises(ModelNotFound):
        ModelStore(Vanishing()).find(ModelId("Nuclei", 1))


def test_threads_that_ask_at_once_get_the_same_whole_file(folder: Path, bucket: Storage, tmp_path: Path) -> None:
    put(folder, "models/Nuclei/1/model.onnx", "x" * 100_000)
    barrier = threading.Barrier(4)

    def find(models: ModelStore) -> str:
        barrier.wait()
        return models.find(ModelId("Nuclei", 1)).read_text()

    with ThreadPoolExecutor(4) as pool:
        # Each store of its own, as processes that share the folder have.
        assert set(pool.map(find, [ModelStore(bucket, tmp_path / "cache") for _ in range(4)])) == {"x" * 100_000}


def test_a_card_of_the_bucket_is_read(folder: Path, bucket: Storage) -> None:
    put(folder, "models/Nuclei/2/saved_model.pb")
    put(folder, "models/Nuclei/2/card.toml", 'postprocess = ["watershed"]')
    models = ModelStore(bucket)
    assert models.card(ModelId("Nuclei", 2)) == Card(postprocess=("watershed",))
    assert models.card(ModelId("Nuclei")) == Card(postprocess=("watershed",))


@pytest.mark.parametrize(("version", "text"), [(1, "packaged 1"), (0, "packaged 10")])
def test_a_packaged_card_is_read(bucket: Storage, version: int, text: str) -> None:
    for models in (ModelStore(bucket), ModelStore()):
        card = models.card(ModelId("Packaged", version))
        assert card is not None
        assert card.description == text


def test_another_model_of_the_same_name_does_not_get_the_packaged_card(folder: Path, bucket: Storage) -> None:
    put(folder, "models/Packaged/1/saved_model.pb")
    put(folder, "models/Packaged/75/saved_model.pb")
    models = ModelStore(bucket)
    assert [models.card(ModelId("Packaged", version)) for version in (1, 75, 0)] == [None, None, None]


def test_a_model_without_a_card_has_none(bucket: Storage) -> None:
    assert ModelStore(bucket).card(ModelId("Nuclei", 1)) is None


def test_a_card_is_read_once_while_it_is_believed(folder: Path, bucket: Storage) -> None:
    put(folder, "models/Nuclei/1/card.toml", 'description = "old"')
    believing, asking = ModelStore(bucket, expire_s=3600), ModelStore(bucket, expire_s=0)
    assert believing.card(ModelId("Nuclei", 1)) == asking.card(ModelId("Nuclei", 1))
    put(folder, "models/Nuclei/1/card.toml", 'description = "new"')
    assert believing.card(ModelId("Nuclei", 1)) == Card(description="old")
    assert asking.card(ModelId("Nuclei", 1)) == Card(description="new")


def test_a_wrong_card_is_refused_by_its_key(folder: Path, bucket: Storage) -> None:
    put(folder, "models/Nuclei/1/card.toml", "radius = 3")
    with pytest.raises(ModelMismatch, match="models/Nuclei/1/card.toml: radius is not a key"):
        ModelStore(bucket).card(ModelId("Nuclei", 1))


def test_packaged_models_are_listed_in_order() -> None:
    assert packaged_models() == [ModelId("Packaged", 1), ModelId("Packaged", 10)]


def test_a_cached_model_is_not_downloaded_again(folder: Path, bucket: Storage, tmp_path: Path) -> None:
    put(folder, "models/Nuclei/2/model.onnx", "the model")
    ModelStore(bucket, tmp_path / "cache").find(ModelId("Nuclei", 2))
    put(folder, "models/Nuclei/2/model.onnx", "another")
    assert ModelStore(bucket, tmp_path / "cache").find(ModelId("Nuclei", 2)).read_text() == "the model"


@pytest.mark.parametrize("damage", ["model.onnx", "model.onnx.data", "SHA256SUMS"])
@pytest.mark.parametrize("is_absent", [True, False], ids=["absent", "changed"])
def test_a_damaged_model_is_downloaded_again(
    folder: Path, bucket: Storage, tmp_path: Path, damage: str, is_absent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    put(folder, "models/Nuclei/2/model.onnx", "the model")
    put(folder, "models/Nuclei/2/model.onnx.data", "weights")
    path = ModelStore(bucket, tmp_path / "cache").find(ModelId("Nuclei", 2)).with_name(damage)
    path.unlink()
    if not is_absent:
        path.write_text("the mode")
    again = ModelStore(bucket, tmp_path / "cache").find(ModelId("Nuclei", 2))
    assert again.read_text() == "the model"
    assert again.with_name("model.onnx.data").read_text() == "weights"
    assert "model Nuclei:2: the files in the cache are damaged; they are downloaded again" in caplog.text


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    folder = tmp_path / "noted"
    folder.mkdir()
    for name in ("model.onnx", "model.onnx.data"):
        (folder / name).write_text(name)
    write_sums(folder)
    return folder


def test_what_was_noted_is_intact(noted: Path) -> None:
    assert is_intact(noted)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", SUMS_FILE])
@pytest.mark.parametrize("content", [b"", b"?\xff", None])
def test_what_changed_or_went_away_is_not(noted: Path, name: str, content: bytes | None) -> None:
    (noted / name).unlink()
    if content is not None:
        (noted / name).write_bytes(content)
    assert not is_intact(noted)


def test_a_folder_without_notes_is_not(tmp_path: Path) -> None:
    assert not is_intact(tmp_path)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum isn't installed")
def test_the_notes_are_those_of_the_usual_command(noted: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", SUMS_FILE], cwd=noted, check=True, capture_output=True)
