"""Defines the settings of the bucket and the limits of images and archives."""

from __future__ import annotations

from pydantic import BaseModel, Field

from redis_consumer.settings.kinds import (
    BucketUrl,
    CloudProvider,
    Count,
    Endpoint,
    ResultUrls,
    Secret,
    SignedFor,
    Size,
    Text,
    Timeout,
)


class BucketOptions(BaseModel):
    """The bucket."""

    storage_bucket: BucketUrl = Field(
        default="s3://default-bucket",
        description="Bucket: s3://, gs://, az://, file:/// or memory://; overrides CLOUD_PROVIDER and its buckets",
    )
    max_download_bytes: Size = Field(default=16 << 30, description="Largest object that is downloaded, in bytes")
    storage_max_backoff: Timeout = Field(
        default=60.0, description="Longest pause between two attempts to reach the bucket, in seconds"
    )
    cloud_provider: CloudProvider = Field(
        default="gke", description="Without STORAGE_BUCKET: AWS_S3_BUCKET or GKE_BUCKET"
    )
    aws_s3_bucket: Text = Field(default="default-bucket", description="Name of the S3 bucket, without STORAGE_BUCKET")
    gke_bucket: Text = Field(default="default-bucket", description="Name of the GCS bucket, without STORAGE_BUCKET")
    aws_region: Text = Field(default="us-east-1", description="Region of the S3 bucket")
    aws_access_key_id: Secret = Field(
        default=None, description="Key id for S3; empty or specify_me: the machine's own credentials"
    )
    aws_secret_access_key: Secret = Field(
        default=None, description="Key for S3; empty or specify_me: the machine's own credentials"
    )
    aws_endpoint_url: Endpoint = Field(
        default="", description="Address of an S3 service other than Amazon's; empty for Amazon's"
    )
    azure_storage_account_name: str = Field(
        default="", description="Name of the Azure account; needed for az:// buckets"
    )
    azure_storage_account_key: Secret = Field(
        default=None, description="Key of the Azure account; empty: the machine's own credentials"
    )
    google_application_credentials: str = Field(
        default="", description="Path of a service account's JSON file for GCS; empty: the machine's own credentials"
    )
    result_urls: ResultUrls = Field(
        default="public", description="public: plain links to results; signed: links that expire"
    )
    signed_url_expire_s: SignedFor = Field(
        default=86400, description="Seconds for which a signed link to a result works"
    )


class LimitOptions(BaseModel):
    """Limits of images and of archives."""

    max_image_height: Size = Field(default=2048, description="Largest height of an image, in pixels")
    max_image_width: Size = Field(default=2048, description="Largest width of an image, in pixels")
    max_image_frames: Size = Field(default=60, description="Most frames of a movie")

    max_job_mb: Count = Field(
        default=0,
        description="MB of memory that one job may need; 0: the container's memory, divided by slots and their threads",
    )

    max_archive_bytes: Size = Field(
        default=10 << 30, description="Largest total size of an archive's unpacked images, in bytes"
    )
    max_archive_members: Size = Field(default=100_000, description="Most files in an archive")
