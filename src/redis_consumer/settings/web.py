"""Defines the settings of the web server."""

from __future__ import annotations

from pydantic import BaseModel, Field

from redis_consumer.settings.kinds import Count, Endpoint, KioskApi, Login, Secret, Size, Text, Timeout


class WebSettings(BaseModel):
    """The web server."""

    web_folder: str = Field(
        default="",
        description="Folder of the server for views, half-sent uploads and its secret; empty: "
        "~/.cache/redis-consumer-web",
    )
    public_url: Endpoint = Field(
        default="", description="Address of the server for links, without a path; empty: the host of each request"
    )
    job_types: Text = Field(
        default="predict,track", description="Queues for which the kiosk's API takes jobs, joined by commas"
    )
    model_prefix: Text = Field(default="models", description="Folder of the bucket whose models the kiosk's API lists")
    upload_prefix: Text = Field(default="uploads", description="Folder of the bucket for uploads")
    web_auth: Login = Field(
        default="none",
        description="Login. none: everybody is an operator; token: tokens of `redis-consumer tokens`; proxy: a header "
        "of a proxy in TRUSTED_PROXIES",
    )
    web_kiosk_api: KioskApi = Field(
        default="auto", description="The kiosk's API, which has no login. auto: on without login, off with one"
    )
    web_tokens: str = Field(default="", description="File with the hashed tokens; empty: tokens.json in WEB_FOLDER")
    web_secret: Secret = Field(
        default=None, description="Key that signs links to results; empty: one that is kept in WEB_FOLDER"
    )
    trusted_proxies: str = Field(
        default="", description="Addresses or networks of proxies whose headers are read, joined by commas"
    )
    web_user_header: Text = Field(
        default="X-Forwarded-User", description="Header with the name of the user, of a trusted proxy"
    )
    web_operators: str = Field(default="", description="Users who are operators when a proxy logs in, joined by commas")
    web_hosts: str = Field(
        default="",
        description="Host names under which the server is reached, joined by commas; empty: loopback names, the host "
        "of PUBLIC_URL and, if the server listens beyond loopback with a login, any",
    )
    web_origins: str = Field(
        default="", description="Origins of other pages that can call API v1, joined by commas; empty for none"
    )
    web_max_waiting: Count = Field(default=0, description="Waiting jobs that a user can have; 0 for no limit")
    web_max_user_bytes: Count = Field(
        default=0, description="Bytes that a user can upload within a day; 0 for no limit"
    )
    web_max_upload_bytes: Size = Field(default=200 << 30, description="Largest upload, in bytes")
    web_cache_mb: Size = Field(
        default=20_000,
        description="MB of the views of images and results in WEB_FOLDER; above it, those not used longest are removed",
    )
    web_decoder_mb: Size = Field(
        default=2_000, description="MB of memory that a process which reads one image for the page can take"
    )
    web_decoder_timeout: Timeout = Field(
        default=600.0, description="Seconds that a process which reads one image for the page can run"
    )
    web_link_expire_s: Timeout = Field(
        default=7 * 24 * 3600.0, description="Seconds for which a link to a result works"
    )
