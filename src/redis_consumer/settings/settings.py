"""Defines all settings.

Each field is the environment variable of the same name in upper case. Section 7 of the contract lists the older ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import PrivateAttr, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from redis_consumer.settings.images import ImageSettings, LimitSettings, ServerSettings, SpotSettings, TrackingSettings
from redis_consumer.settings.kinds import Allowed
from redis_consumer.settings.redis_url import redis_values
from redis_consumer.settings.web import WebSettings
from redis_consumer.settings.worker import BucketSettings, LogSettings, QueueSettings, RedisSettings
from redis_consumer.text import check_numbers

MASK = "********"


@dataclass(frozen=True)
class Setting:
    """One setting, as it is shown to users.

    Attributes:
        name: the environment variable.
        value: the current value; masked if it is a secret that is set.
        source: the source of the value.
        description: its meaning, its unit and the meaning of 0.
    """

    name: str
    value: str | int | float | bool | None
    source: str
    description: str


class Settings(
    # They are listed in the reverse of this order.
    WebSettings,
    LogSettings,
    SpotSettings,
    TrackingSettings,
    LimitSettings,
    ImageSettings,
    BucketSettings,
    ServerSettings,
    RedisSettings,
    QueueSettings,
    BaseSettings,
):
    """Every setting, checked and frozen.

    ``Settings(...)`` holds its arguments and defaults only; `redis_consumer.settings.load_settings` also reads the
    environment and the files. Field names and the variables' own names are both taken as arguments.
    """

    model_config = SettingsConfigDict(
        alias_generator=str.upper,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
        case_sensitive=True,
        validate_default=False,
        hide_input_in_errors=True,
    )

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments only, so that the values never depend on the machine."""
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _follow_older_names(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Derive values from CLOUD_PROVIDER with its buckets, and from DEBUG, if the newer settings are not set.

        REDIS_URL overrides the other settings of Redis.
        """
        values = {name.upper(): text.strip() if isinstance(text, str) else text for name, text in given.items()}
        provider = str(values.get("CLOUD_PROVIDER", "gke")).lower()
        if "STORAGE_BUCKET" not in values and values.keys() & {"CLOUD_PROVIDER", "AWS_S3_BUCKET", "GKE_BUCKET"}:
            scheme, name = ("s3", "AWS_S3_BUCKET") if provider == "aws" else ("gs", "GKE_BUCKET")
            values["STORAGE_BUCKET"] = f"{scheme}://{values.get(name, 'default-bucket')}"
        if "LOG_LEVEL" not in values and "DEBUG" in values:
            values["LOG_LEVEL"] = (
                "DEBUG" if str(values["DEBUG"]).lower() in {"true", "1", "yes", "on", "y", "t"} else "INFO"
            )
        return {**values, **redis_values(values.get("REDIS_URL"))}

    @field_validator("*", mode="before")
    @classmethod
    def _only_plain_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        check_numbers(cls.model_fields[info.field_name or ""].annotation, value)
        return value

    @property
    def storage_bucket_url(self) -> str:
        """URL of the bucket, whichever variables named it."""
        return self.storage_bucket

    @property
    def model_server_url(self) -> str:
        """URL of the model server, whichever variables named it."""
        return self.model_server

    @property
    def is_bucket_given(self) -> bool:
        """Whether STORAGE_BUCKET itself was set, rather than made of CLOUD_PROVIDER and its buckets."""
        older = {"CLOUD_PROVIDER", "AWS_S3_BUCKET", "GKE_BUCKET"}
        return self.is_given("STORAGE_BUCKET") and not set(self.source("STORAGE_BUCKET").split(", ")) <= older

    def is_given(self, name: str) -> bool:
        """Return whether this variable is set, and not left at its default."""
        return self.source(name) != "default"

    def source(self, name: str) -> str:
        """Where the value of a variable came from, e.g. ``environment`` or ``default``."""
        field = name.lower()
        return self._sources.get(name.upper(), "argument" if field in self.model_fields_set else "default")

    def describe(self) -> list[Setting]:
        """List every setting for people; secrets are masked."""
        return [self._describe(name) for name in type(self).model_fields]

    def _describe(self, field: str) -> Setting:
        value = getattr(self, field)
        if isinstance(value, SecretStr):
            value = MASK
        description = type(self).model_fields[field].description or ""
        return Setting(field.upper(), value, self.source(field), description)


def allowed_values(name: str) -> str | None:
    """Describe the values that a variable accepts; None if pydantic's own message is used."""
    field = Settings.model_fields[name.lower()]
    for mark in field.metadata:
        if isinstance(mark, Allowed):
            return mark.words
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return "one of " + ", ".join(choices)
    return None
