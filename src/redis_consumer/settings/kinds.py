"""Defines the values that each kind of setting accepts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from redis_consumer.settings.redis_url import parse_redis_url

BUCKET_SCHEMES = ("s3", "gs", "az", "file", "memory")
SERVER_SCHEMES = ("tfs", "tfss", "oip", "oips", "onnx")


CONFLICT = "conflict"
"""Type of the error for a value that is allowed by itself; its message says what it is at odds with."""


@dataclass(frozen=True)
class Allowed:
    """What a kind of setting allows, in the words of an error message: "must be " + `words`."""

    words: str


def _model_name(text: str) -> str:
    if not re.fullmatch(r"[^\s/\\:.][^/\\:]{0,254}:([0-9]{1,18}|[A-Za-z][A-Za-z0-9_.-]{0,63})", text):
        raise ValueError("no name:version")
    return text


def _model_names(text: str) -> str:
    return ",".join(_model_name(name.strip()) for name in text.split(",")) if text else text


def _queue_name(text: str) -> str:
    # Consumers lower-case their queue. The same is done here, so that parents and children use the same case.
    if not text or any(character.isspace() for character in text):
        raise ValueError("no queue name")
    return text.lower()


def _worker_name(text: str) -> str:
    # Neighbours take what stands behind the last colon of a processing list as the worker's name (contract, 1.1).
    if not text or ":" in text:
        raise ValueError("no worker name")
    return text


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if text and not (host and colon and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise ValueError("no host:port")
    return text


def _url_of(*schemes: str) -> AfterValidator:
    def check(text: str) -> str:
        found = re.match(r"([a-z0-9]+)://([^/?#]*)", text, re.IGNORECASE)
        if text and (found is None or found[1].lower() not in schemes):
            raise ValueError("no URL of these")
        # What stands before an @ may be a password, and these URLs are shown and become part of links. Only within a
        # bucket's prefix or folder it is a character like any other.
        if found is not None and "@" in (found[2] if found[1].lower() in BUCKET_SCHEMES else text):
            raise ValueError("a name or password")
        return text

    return AfterValidator(check)


def _given(secret: SecretStr | None) -> SecretStr | None:
    # The kiosk's charts fill in this word where the operator gave no key.
    return None if secret is not None and secret.get_secret_value() in ("", "specify_me") else secret


def _redis_url(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None:
        parse_redis_url(secret.get_secret_value())
    return secret


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Port = Annotated[int, Field(ge=1, le=65535), Allowed("a whole number from 1 to 65535")]
Count = Annotated[int, Field(ge=0), Allowed("a whole number, 0 or more")]
Size = Annotated[int, Field(ge=1), Allowed("a whole number, 1 or more")]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), Allowed("a number of seconds, 0 or more")]
Timeout = Annotated[float, Field(gt=0, allow_inf_nan=False), Allowed("a number of seconds above 0")]
Factor = Annotated[float, Field(gt=0, allow_inf_nan=False), Allowed("a number above 0")]
Fraction = Annotated[float, Field(ge=0, le=1), Allowed("a number from 0 to 1")]
Switch = Annotated[bool, Allowed("true, 1, yes or on; or false, 0, no or off")]
Text = Annotated[str, Field(min_length=1), Allowed("some text")]
ModelName = Annotated[str, AfterValidator(_model_name), Allowed("a model as name:version, e.g. NuclearSegmentation:6")]
ModelNames = Annotated[
    str, AfterValidator(_model_names), Allowed("models as name:version, joined by commas, e.g. NuclearSegmentation:6")
]
QueueName = Annotated[str, AfterValidator(_queue_name), Allowed("a name without spaces")]
WorkerName = Annotated[str, AfterValidator(_worker_name), Allowed("a name without ':'")]
SignedFor = Annotated[int, Field(ge=1, le=7 * 24 * 3600), Allowed("a whole number from 1 to 604800, which is a week")]
BucketUrl = Annotated[
    str,
    Field(min_length=1),
    _url_of(*BUCKET_SCHEMES),
    Allowed("a URL without a password: s3://bucket, gs://bucket, az://container, file:///folder or memory://"),
]
HealthAddress = Annotated[str, AfterValidator(_address), Allowed("host:port, e.g. 0.0.0.0:8080, or empty")]
ServerUrl = Annotated[
    str,
    Field(min_length=1),
    _url_of(*SERVER_SCHEMES),
    Allowed("tfs://host:port, oip://host:port, the same with TLS by tfss://, oips://; or onnx://; no password"),
]
Endpoint = Annotated[
    str, _url_of("http", "https"), Allowed("a URL that starts with http:// or https:// and holds no password")
]
TensorDtype = Annotated[str, Field(pattern=r"^DT_[A-Z0-9]+$"), Allowed("a TensorFlow data type, e.g. DT_FLOAT")]
Secret = Annotated[SecretStr | None, AfterValidator(_given)]
RedisAddress = Annotated[
    SecretStr | None,
    AfterValidator(_given),
    AfterValidator(_redis_url),
    Allowed("redis://[user:password@]host[:port][/db], the same with TLS by rediss://, or unix:///path[?db=number]"),
]

CloudProvider = Annotated[Literal["aws", "gke"], BeforeValidator(_lower)]
Compression = Annotated[Literal["none", "gzip", "deflate"], BeforeValidator(_lower)]
ResultUrls = Annotated[Literal["public", "signed"], BeforeValidator(_lower)]
CropMode = Annotated[Literal["resize", "fixed"], BeforeValidator(_lower)]
Compartment = Annotated[Literal["whole-cell", "nuclear", "both"], BeforeValidator(_lower)]
Login = Annotated[Literal["none", "token", "proxy"], BeforeValidator(_lower)]
KioskApi = Annotated[Literal["auto", "on", "off"], BeforeValidator(_lower)]
LogFormat = Annotated[Literal["text", "json"], BeforeValidator(_lower)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)]
