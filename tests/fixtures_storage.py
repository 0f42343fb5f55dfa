"""Buckets for tests: a folder, memory, and S3 and Google Cloud Storage over HTTP on loopback."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.storage import Storage
from support.cloud_server import CloudServer, set_fault

# Short, so that a test of an absent store ends soon.
PATIENCE: dict[str, Any] = {"max_backoff_s": 0.05, "retry_s": 1.0, "timeout_s": 5.0}


@dataclass(frozen=True)
class BucketForTests:
    """An empty bucket of its own for one test.

    Attributes:
        url: value of ``STORAGE_BUCKET``.
        options: arguments with which `Storage` opens it.
        environment: variables with which a worker process opens it, ``STORAGE_BUCKET`` included. Together with
            these, a process should get no other variable that begins with ``AWS_`` or ``GOOGLE_``.
        server_url: address of its server, for `support.cloud_server.set_fault`; empty where there is none.
    """

    url: str
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    server_url: str = ""

    def open(self, **options: Any) -> Storage:
        """A `Storage` with little patience."""
        return Storage(self.url, **{**PATIENCE, **self.options, **options})


@pytest.fixture(scope="session")
def cloud_server() -> Iterator[CloudServer]:
    """S3 and GCS in a process of its own."""
    server = CloudServer.start()
    yield server
    server.stop()


@pytest.fixture
def file_bucket(tmp_path: Path) -> BucketForTests:
    """A folder."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    url = folder.as_uri()
    return BucketForTests(url, {}, {"STORAGE_BUCKET": url})


@pytest.fixture
def s3_bucket(cloud_server: CloudServer) -> Iterator[BucketForTests]:
    """An S3 bucket, with dummy credentials."""
    name = f"s3-{uuid.uuid4().hex}"
    cloud_server.make_bucket(name)
    options = {
        "region": "us-east-1",
        "access_key_id": "dummy",
        "secret_access_key": "dummy",
        "endpoint": cloud_server.s3_url,
    }
    environment = {
        "STORAGE_BUCKET": f"s3://{name}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "dummy",
        "AWS_SECRET_ACCESS_KEY": "dummy",
        "AWS_ENDPOINT_URL": cloud_server.s3_url,
    }
    yield BucketForTests(f"s3://{name}", options, environment, cloud_server.s3_url)
    set_fault(cloud_server.s3_url)


@pytest.fixture(scope="session")
def service_account(cloud_server: CloudServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Credentials for the local GCS, with a real key, so that links and tokens are signed without asking Google."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "gcs_base_url": cloud_server.gcs_url,
        "client_email": "dummy@example.iam.gserviceaccount.com",
        "private_key_id": "dummy",
        "private_key": key.decode(),
    }
    path = tmp_path_factory.mktemp("gcs") / "service-account.json"
    path.write_text(json.dumps(account))
    return path


@pytest.fixture
def gcs_bucket(cloud_server: CloudServer, service_account: Path) -> Iterator[BucketForTests]:
    """A GCS bucket, with credentials made for the test."""
    name = f"gcs-{uuid.uuid4().hex}"
    cloud_server.make_bucket(name)
    environment = {"STORAGE_BUCKET": f"gs://{name}", "GOOGLE_APPLICATION_CREDENTIALS": str(service_account)}
    yield BucketForTests(f"gs://{name}", {"service_account": str(service_account)}, environment, cloud_server.gcs_url)
    set_fault(cloud_server.gcs_url)


@pytest.fixture
def file_storage(file_bucket: BucketForTests) -> Storage:
    """A folder, opened."""
    return file_bucket.open()


@pytest.fixture
def s3_storage(s3_bucket: BucketForTests) -> Storage:
    """An S3 bucket, opened."""
    return s3_bucket.open()


@pytest.fixture
def gcs_storage(gcs_bucket: BucketForTests) -> Storage:
    """A GCS bucket, opened."""
    return gcs_bucket.open()
