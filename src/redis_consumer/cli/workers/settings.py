"""``redis-consumer settings``: shows the settings that a consumer reads, and the source of each value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from redis_consumer.cli import options
from redis_consumer.cli.output import console, notes, say, write_json
from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.registry import BUILT_IN, get_consumer_class
from redis_consumer.errors import SettingsError
from redis_consumer.settings import Setting, Settings, load_settings
from redis_consumer.settings.web import WebSettings

_WORKER = """
    QUEUE CONSUMER_TYPE HOSTNAME CONCURRENCY THREADS GRACE_PERIOD HEALTH_ADDRESS JOB_TIMEOUT STALL_TIMEOUT
    MAX_ATTEMPTS RESULT_TTL EXPIRE_TIME MAX_RSS_MB LEASE_TIMEOUT RENEW_INTERVAL SWEEP_INTERVAL
    REDIS_URL REDIS_HOST REDIS_PORT REDIS_USERNAME REDIS_PASSWORD REDIS_TIMEOUT REDIS_MASTER_NAME REDIS_CA
    REDIS_CLIENT_CERT REDIS_CLIENT_KEY REDIS_WAIT_REPLICAS
    DEBUG LOG_LEVEL LOG_FORMAT OTEL_EXPORTER_OTLP_ENDPOINT
    STORAGE_BUCKET CLOUD_PROVIDER AWS_S3_BUCKET GKE_BUCKET MAX_DOWNLOAD_BYTES STORAGE_MAX_BACKOFF
    RESULT_URLS SIGNED_URL_EXPIRE_S AWS_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_ENDPOINT_URL
    AZURE_STORAGE_ACCOUNT_NAME AZURE_STORAGE_ACCOUNT_KEY GOOGLE_APPLICATION_CREDENTIALS
"""
_SERVER = """
    MODEL_SERVER TF_HOST TF_PORT MODEL_CACHE WARM_UP MODEL_SERVER_CA MODEL_SERVER_HEADERS METADATA_EXPIRE_TIME
    GRPC_TIMEOUT GRPC_COMPRESSION GRPC_BACKOFF MAX_RETRY TF_MAX_BATCH_SIZE
"""
_LIMITS = "MAX_IMAGE_HEIGHT MAX_IMAGE_WIDTH MAX_IMAGE_FRAMES MAX_JOB_MB"
_ARCHIVES = "MAX_ARCHIVE_BYTES MAX_ARCHIVE_MEMBERS"
_CALLS = f"{_SERVER} {_LIMITS} TF_TENSOR_NAME TF_MIN_MODEL_SIZE MAX_CALL_BYTES CALLS_IN_FLIGHT"
_IMAGE = f"""
    {_CALLS} MAX_SCALE MIN_SCALE
    AUTO_SCALE SCALE_DETECT_ENABLED SCALE_DETECT_MODEL SCALE_DETECT_SAMPLE SCALE_RESHAPE_SIZE
"""
_KINDS = """
    NUCLEAR_MODEL CYTOPLASM_MODEL PHASE_MODEL TISSUE_MODEL
    NUCLEAR_POSTPROCESS CYTOPLASM_POSTPROCESS PHASE_POSTPROCESS TISSUE_POSTPROCESS
    LABEL_DETECT_ENABLED LABEL_DETECT_MODEL LABEL_DETECT_SAMPLE LABEL_RESHAPE_SIZE CHANNELS_REQUIRED
"""
_LINKING = """
    NORMALIZE_TRACKING NEIGHBORHOOD_SCALE_SIZE TRACK_LENGTH DIVISION BIRTH DEATH NEIGHBORHOOD_ENCODER
    APPEARANCE_DIM CROP_MODE CALIBAN_NORM
"""
_TRACKING = f"""
    {_IMAGE} {_KINDS} {_ARCHIVES} {_LINKING} SEGMENTATION_QUEUE TRACKING_MODEL CALIBAN_MODEL MAX_DISTANCE
    DRIFT_CORRECT_ENABLED TRACKING_SEGMENT_MODEL TRACKING_POSTPROCESS_FUNCTION CUTS
"""

#: Settings by the class that reads them, as a test finds them out. Other consumers read those of their nearest base.
READ_BY = {
    name: frozenset(f"{_WORKER} {own}".split())
    for name, own in {
        "Consumer": "",
        "TensorFlowServingConsumer": f"{_IMAGE} {_KINDS}",
        "ImageFileConsumer": f"{_IMAGE} {_KINDS}",
        "SegmentationConsumer": f"{_IMAGE} {_KINDS}",
        "SpotConsumer": f"{_CALLS} POLARIS_MODEL POLARIS_THRESHOLD POLARIS_CLIP",
        "PolarisConsumer": f"{_LIMITS} POLARIS_SCALE",
        "MesmerConsumer": f"{_IMAGE} MESMER_MODEL MESMER_COMPARTMENT MULTIPLEX_MODEL BUILT_IN_WHOLE_CELL NUCLEAR_MODEL",
        "ZipFileConsumer": _ARCHIVES,
        "TrackingConsumer": _TRACKING,
    }.items()
}

#: The reader of a setting that no worker reads.
NOT_BY_WORKERS = {
    **dict.fromkeys(("EMPTY_QUEUE_TIMEOUT", "DO_NOTHING_TIMEOUT"), "scripts that call Consumer.consume()"),
    "TF_TENSOR_DTYPE": "consumers that call the older functions of the model server's client",
    **dict.fromkeys((name.upper() for name in WebSettings.model_fields), "redis-consumer serve"),
    **dict.fromkeys(
        (
            "INTERVAL", "DP_HOST", "DP_PORT",
        ),
        "nothing",
    ),
}  # fmt: skip

#: Settings that have an effect only together with others, and when.
_EFFECTIVE: dict[str, Callable[[Settings], bool]] = {
    "EXPIRE_TIME": lambda s: s.consumer_type.lower() != "image",  # images have no child jobs
    "AWS_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_ENDPOINT_URL": lambda s: s.storage_bucket[:5] == "s3://",
    "AZURE_STORAGE_ACCOUNT_NAME AZURE_STORAGE_ACCOUNT_KEY": lambda s: s.storage_bucket[:5] == "az://",
    "GOOGLE_APPLICATION_CREDENTIALS": lambda s: s.storage_bucket[:5] == "gs://",
    "SIGNED_URL_EXPIRE_S": lambda s: s.result_urls == "signed",
    "REDIS_CA REDIS_CLIENT_CERT REDIS_CLIENT_KEY": lambda s: s.source("REDIS_URL") != "default",
    "REDIS_USERNAME": lambda s: s.redis_password is not None,
    "MODEL_CACHE": lambda s: s.model_server == "onnx://",
    "MODEL_SERVER_CA": lambda s: s.model_server.partition("://")[0] in ("tfss", "oips"),
    "MODEL_SERVER_HEADERS METADATA_EXPIRE_TIME GRPC_TIMEOUT GRPC_COMPRESSION GRPC_BACKOFF MAX_RETRY": lambda s: (
        s.model_server != "onnx://"
    ),
    "SCALE_DETECT_MODEL SCALE_DETECT_SAMPLE SCALE_RESHAPE_SIZE": lambda s: s.scale_detect_enabled,
    "LABEL_DETECT_MODEL LABEL_DETECT_SAMPLE LABEL_RESHAPE_SIZE": lambda s: s.label_detect_enabled,
    # A tracking worker runs a model only to link cells or to detect a scale or a kind; others segment its frames.
    "TF_TENSOR_NAME TF_MIN_MODEL_SIZE TF_MAX_BATCH_SIZE MAX_CALL_BYTES CALLS_IN_FLIGHT": lambda s: (
        not _is_tracking(s) or _links_by_model(s) or s.scale_detect_enabled or s.label_detect_enabled
    ),
    "CYTOPLASM_MODEL PHASE_MODEL TISSUE_MODEL": lambda s: not _is_tracking(s) or s.label_detect_enabled,
    # Only for models without a card.
    "NUCLEAR_POSTPROCESS CYTOPLASM_POSTPROCESS PHASE_POSTPROCESS TISSUE_POSTPROCESS": lambda _: False,
    "TRACKING_POSTPROCESS_FUNCTION CUTS": lambda s: s.is_given("TRACKING_SEGMENT_MODEL"),
    _LINKING: lambda s: _links_by_model(s),
    # They decide the values of newer settings that are shown.
    "REDIS_URL DEBUG CLOUD_PROVIDER AWS_S3_BUCKET GKE_BUCKET TF_HOST TF_PORT CALIBAN_MODEL": lambda _: False,
}


def _is_tracking(settings: Settings) -> bool:
    return settings.consumer_type.lower() in ("tracking", "caliban")


def _links_by_model(settings: Settings) -> bool:
    return settings.is_given("TRACKING_MODEL") or settings.is_given("CALIBAN_MODEL")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "settings",
        epilog=notes(
            "redis-consumer settings",
            "redis-consumer settings --consumer tracking",
            "redis-consumer settings --given",
            "REDIS_PORT=7000 redis-consumer settings --all --json",
        ),
    )(show_settings)


def show_settings(
    consumer: Annotated[
        str | None,
        typer.Option(
            "--consumer", "-c", help="Consumer whose settings are shown; overrides CONSUMER_TYPE.", metavar="TYPE"
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show all settings, and which consumers read them.")
    ] = False,
    given: Annotated[bool, typer.Option("--given", help="Show only settings that are not at their default.")] = False,
    json: options.Json = False,
) -> None:
    """Show the value, source and meaning of the settings that a consumer reads.

    Settings that have no effect together with the others, such as those of S3 for
    a bucket on disk, are shown only if they are given.

    Settings are read from the environment, then from .env, settings.ini and
    redis-consumer.toml in the working directory (or the TOML file that
    REDIS_CONSUMER_CONFIG names). The first source that has a value is used. Secrets
    are masked.
    """
    settings = load_settings(consumer_type=consumer)
    shown = settings.describe()
    if given:
        shown = [setting for setting in shown if setting.source != "default"]
    elif not everything:
        names = _read_by(settings)
        shown = [setting for setting in shown if setting.name in names]
    if json:
        write_json([{**asdict(setting), "read_by": readers_of(setting.name)} for setting in shown])
        return
    _write_table(shown, has_readers=everything or given)
    if not (everything or given):
        say(f"{len(shown)} settings that {settings.consumer_type} reads; --all shows all {len(Settings.model_fields)}.")


def _read_by(settings: Settings) -> set[str]:
    try:
        return settings_of(get_consumer_class(settings.consumer_type), settings)
    except SettingsError as error:
        say(f"Note: all settings are shown. {error}")
        return {name.upper() for name in Settings.model_fields}


def _write_table(shown: list[Setting], *, has_readers: bool) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Setting", no_wrap=True)
    table.add_column("Value", overflow="fold")
    table.add_column("From", overflow="fold")
    if has_readers:
        table.add_column("Read by", overflow="fold")
    table.add_column("Meaning", overflow="fold")
    for setting in shown:
        style = "dim" if setting.source == "default" else "green"
        value = "" if setting.value is None else str(setting.value)
        readers = [Text(", ".join(readers_of(setting.name)) or NOT_BY_WORKERS[setting.name])] if has_readers else []
        # As Text, since rich would interpret brackets in a value as markup.
        table.add_row(
            Text(setting.name), Text(value), Text(setting.source, style=style), *readers, Text(setting.description)
        )
    console().print(table)


def settings_of(consumer: type[Consumer], settings: Settings) -> set[str]:
    """List the settings that a consumer reads and that have an effect now, or are given."""
    names = next(READ_BY[base.__name__] for base in consumer.__mro__ if base.__name__ in READ_BY)
    idle = {name for part, is_effective in _EFFECTIVE.items() if not is_effective(settings) for name in part.split()}
    return {name for name in names if name not in idle or settings.is_given(name)}


def readers_of(name: str) -> list[str]:
    """List the built-in consumers that read a setting; ``all consumers`` if each one does."""
    if name in READ_BY["Consumer"]:
        return ["all consumers"]
    return [kind for kind, path in BUILT_IN.items() if name in READ_BY[path.rpartition(":")[2]]]
