"""Gives a consumer that was built by the contract's constructor alone the parts that the settings name.

The one place below the command line that reads settings, always at the time of the call, so that users may assign
to ``settings.NAME``.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis_consumer import resources, settings
from redis_consumer.errors import InvalidJob
from redis_consumer.job import ModelId

if TYPE_CHECKING:
    from redis_consumer.models import ModelStore
    from redis_consumer.redis import RedisClient
    from redis_consumer.serving.base import ModelServer
    from redis_consumer.storage import Storage


def get(name: str) -> Any:
    """Value of a setting by its name in the contract, as it is now."""
    return settings.get(name)


def is_given(name: str) -> bool:
    """Whether somebody set a setting, rather than leave it at its default."""
    return settings.current().is_given(name)


def effective(names: Iterable[str]) -> dict[str, tuple[Any, bool]]:
    """Value of each setting by its name, and whether somebody set it, as they are now; none of them may be a secret."""
    now = settings.current()
    return {name: (getattr(now, name.lower()), now.is_given(name)) for name in names}


def is_setting(name: str) -> bool:
    """Whether there is a setting of this name."""
    return settings.is_setting(name)


def variables(names: Iterable[str]) -> dict[str, settings.Variable]:
    """Give variables that aren't settings, by name, where they are set."""
    return settings.read_variables(names)


def read_anew() -> AbstractContextManager[None]:
    """Within the block, let settings be loaded anew when they are first asked for."""
    return settings.read_anew()


def max_job_bytes() -> int:
    """Bytes of memory that one job may need: ``MAX_JOB_MB``, or the job's part of the container's memory."""
    return int(get("MAX_JOB_MB")) * 10**6 or resources.usable_bytes() // (int(get("CONCURRENCY")) * int(get("THREADS")))


def redis_client(*, deadline_s: float | None = None) -> RedisClient:
    """Connect to Redis; waits for an absent one for `deadline_s` seconds, None for ever."""
    from redis_consumer.redis import RedisClient
    from redis_consumer.redis_servers import access_from

    return RedisClient(
        get("REDIS_HOST"), get("REDIS_PORT"), get("REDIS_TIMEOUT"), access=access_from(get), deadline_s=deadline_s
    )


def storage() -> Storage:
    """Open the bucket; nothing connects yet."""
    from redis_consumer.storage import Storage

    return Storage(get("STORAGE_BUCKET"))


def model_store(bucket: Storage | None) -> ModelStore:
    """Find models and cards: in the bucket, else in the package."""
    from redis_consumer.models import ModelStore

    folder = get("MODEL_CACHE")
    return ModelStore(bucket, Path(folder) if folder else None)


def model_server(models: ModelStore) -> ModelServer:
    """Open the model server that the settings name; nothing connects yet."""
    from redis_consumer.serving import ConnectionOptions, open_model_server
    from redis_consumer.serving.transport.connection import parse_headers

    headers = get("MODEL_SERVER_HEADERS")
    return open_model_server(
        get("MODEL_SERVER"),
        find_model=models.find,
        timeout_s=get("GRPC_TIMEOUT"),
        backoff_s=get("GRPC_BACKOFF"),
        max_retries=get("MAX_RETRY"),
        metadata_expire_s=get("METADATA_EXPIRE_TIME"),
        slots=get("CONCURRENCY"),
        connection=ConnectionOptions(
            ca_path=Path(get("MODEL_SERVER_CA")) if get("MODEL_SERVER_CA") else None,
            headers=parse_headers(headers or ""),
            compression=get("GRPC_COMPRESSION"),
        ),
    )


def model_of_label(label: int | None) -> ModelId:
    """The model for a kind of image (contract, section 7); for nuclei where the kind is unknown."""
    choices = get("MODEL_CHOICES")
    if (label or 0) not in choices:
        raise InvalidJob(f"field label: {label} is no kind of image; give one of {', '.join(map(str, choices))}")
    return ModelId.parse(str(choices[label or 0]))


def postprocess_of_label(label: int | str) -> str:
    """The function that follows the model for a kind of image (contract, section 5.2)."""
    choices = get("POSTPROCESS_CHOICES")
    if int(label) not in choices:
        raise InvalidJob(f"field label: {label} is no kind of image; give one of {', '.join(map(str, choices))}")
    return str(choices[int(label)])


def name_and_version_of_label(label: int | str) -> list[str]:
    """The model for a kind of image as name and version, in the form of 2020."""
    name, _, version = str(model_of_label(int(label))).partition(":")
    return [name, version]


def functions_of_model(model: ModelId) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Functions before and after a model that has no card: those of its kind of image (contract, section 5.4).

    Returns:
        Their names; none for a model that the settings don't name for any kind.
    """
    labels = [label for label, name in get("MODEL_CHOICES").items() if ModelId.parse(str(name)) == model]
    return (("histogram_normalization",), (postprocess_of_label(labels[0]),)) if labels else ((), ())


def queue() -> str:
    """The list that the settings name: ``QUEUE``, or for archives ``<QUEUE>-zip`` (contract, section 1.1)."""
    name = str(get("QUEUE")).lower()
    is_zip = str(get("CONSUMER_TYPE")).lower() == "zip" and not name.endswith("-zip")
    return f"{name}-zip" if is_zip else name


def parts(name: str | None = None) -> dict[str, Any]:
    """The arguments of a consumer's constructor, as the settings name them.

    Args:
        name: queue, in place of the one that the settings name.
    """
    return {"redis_client": redis_client(), "storage_client": storage(), "queue": name or queue()}
