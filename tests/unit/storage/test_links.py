"""URLs of objects, and the objects that URLs and paths made of URLs mean."""

from __future__ import annotations

import posixpath
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_consumer.errors import InvalidJob, SettingsError
from redis_consumer.storage.keys import BucketAddress, Links

S3 = Links(BucketAddress("s3", "images"))
GCS = Links(BucketAddress("gs", "images"))
AZURE = Links(BucketAddress("az", "images"), account="lab")
FOLDER = Links(BucketAddress("file", "/data/images"))
MEMORY = Links(BucketAddress("memory", ""))
MINIO = Links(BucketAddress("s3", "images"), endpoint="http://minio:9000/s3")
PREFIX = Links(BucketAddress("gs", "images", "lab/one"))
ALL = {"s3": S3, "gcs": GCS, "azure": AZURE, "folder": FOLDER, "memory": MEMORY, "minio": MINIO, "prefix": PREFIX}


@pytest.mark.parametrize(
    ("links", "public", "bucket_url"),
    [
        (S3, "https://s3.amazonaws.com/images/output/a%20b.zip", "s3.amazonaws.com/images"),
        (GCS, "https://storage.googleapis.com/images/output/a%20b.zip", "www.googleapis.com/storage/v1/b/images/o"),
        (AZURE, "https://lab.blob.core.windows.net/images/output/a%20b.zip", "lab.blob.core.windows.net/images"),
        (FOLDER, "file:///data/images/output/a%20b.zip", "file:///data/images"),
        (MEMORY, "memory:///output/a%20b.zip", "memory://"),
        (MINIO, "http://minio:9000/s3/images/output/a%20b.zip", "minio:9000/s3/images"),
        (
            PREFIX,
            "https://storage.googleapis.com/images/lab/one/output/a%20b.zip",
            "www.googleapis.com/storage/v1/b/images/o",
        ),
    ],
    ids=list(ALL),
)
def test_links_of_each_kind(links: Links, public: str, bucket_url: str) -> None:
    assert links.public_url("output/a b.zip") == public
    assert links.bucket_url == bucket_url


@pytest.mark.parametrize("links", ALL.values(), ids=list(ALL))
@given(key=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4).map("/".join))
def test_the_link_of_a_key_means_the_key(links: Links, key: str) -> None:
    try:
        key = links.key_of(key)
    except InvalidJob:
        return
    assert links.key_of(links.public_url(key)) == key


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.amazonaws.com/images/uploads/a%20b.tif",
        "http://s3.amazonaws.com/images/uploads/a%20b.tif",
        "s3.amazonaws.com/images/uploads/a%20b.tif",
        "https://s3.eu-central-1.amazonaws.com/images/uploads/a%20b.tif",
        "https://s3-us-west-2.amazonaws.com/images/uploads/a%20b.tif",
        "https://s3.dualstack.us-east-1.amazonaws.com/images/uploads/a%20b.tif",
        "https://s3.cn-north-1.amazonaws.com.cn/images/uploads/a%20b.tif",
        "https://images.s3.amazonaws.com/uploads/a%20b.tif",
        "https://IMAGES.S3.amazonaws.com/uploads%2Fa%20b.tif",
        "https://images.s3.eu-central-1.amazonaws.com/uploads/a%20b.tif?X-Amz-Expires=60#x",
        "images.s3.eu-central-1.amazonaws.com/uploads/a%20b.tif",
        "s3://images/uploads/a b.tif",
        "S3://images/uploads/a b.tif",
    ],
)
def test_urls_of_s3(url: str) -> None:
    assert S3.key_of(url) == "uploads/a b.tif"


@pytest.mark.parametrize(
    "url",
    [
        "https://storage.googleapis.com/images/uploads/a%20b.tif",
        "https://storage.cloud.google.com/images/uploads/a%20b.tif",
        "https://images.storage.googleapis.com/uploads/a%20b.tif",
        "https://www.googleapis.com/storage/v1/b/images/o/uploads%2Fa%20b.tif?alt=media",
        "www.googleapis.com/storage/v1/b/images/o/uploads%2Fa%20b.tif",
        "https://storage.googleapis.com/download/storage/v1/b/images/o/uploads%2Fa%20b.tif",
        "gs://images/uploads/a b.tif",
    ],
)
def test_urls_of_gcs(url: str) -> None:
    assert GCS.key_of(url) == "uploads/a b.tif"


@pytest.mark.parametrize(
    "url",
    [
        "http://minio:9000/s3/images/uploads/a%20b.tif",
        "http://images.minio:9000/uploads/a%20b.tif",
        "https://s3.amazonaws.com/images/uploads/a%20b.tif",
    ],
)
def test_urls_of_a_server_of_one_s_own(url: str) -> None:
    assert MINIO.key_of(url) == "uploads/a b.tif"


def test_urls_of_azure_name_the_account() -> None:
    assert AZURE.key_of("https://lab.blob.core.windows.net/images/uploads/a.tif") == "uploads/a.tif"
    with pytest.raises(InvalidJob):
        AZURE.key_of("https://other.blob.core.windows.net/images/uploads/a.tif")


def test_a_url_outside_of_the_prefix_is_refused() -> None:
    assert PREFIX.key_of("gs://images/lab/one/uploads/a.tif") == "uploads/a.tif"
    with pytest.raises(InvalidJob, match="outside of the bucket gs://images/lab/one"):
        PREFIX.key_of("gs://images/lab/two/uploads/a.tif")


@pytest.mark.parametrize("links", ALL.values(), ids=list(ALL))
@pytest.mark.parametrize(
    "url",
    [
        "https://s3.amazonaws.com/other/uploads/a.tif",
        "https://other.s3.amazonaws.com/uploads/a.tif",
        "https://images.s3.amazonaws.com.evil.example/uploads/a.tif",
        "https://evil.example/images/uploads/a.tif",
        "https://storage.googleapis.com/other/a.tif",
        "https://www.googleapis.com/storage/v1/b/other/o/a.tif",
        "https://storage.googleapis.com/images",
        "gs://other/a.tif",
        "s3://other/a.tif",
        "file:///etc/passwd",
        "file://host/data/images/a.tif",
        "file:///data/images2/a.tif",
        "memory://other/a.tif",
        "https://[bad/a.tif",
        "https://s3.amazonaws.com/images/%ff.tif",
        "http://169.254.169.254/latest/meta-data",
        "https://s3.amazonaws.com/images/../other/%2e%2e/a.tif",
        "https://storage.googleapis.com/images/lab/one/%2e%2e/a.tif",
        "http://minio:9000/s3/images/a%2f..%2fb",
        "file:///data/images/../secret",
    ],
)
def test_no_other_url_is_a_key(links: Links, url: str) -> None:
    with pytest.raises(InvalidJob, match="field input_file_name"):
        links.key_of(url, "field input_file_name")


@pytest.mark.parametrize(
    "key", ["uploads/s3.amazonaws.com/a.tif", "storage/a.tif", "uploads/a:b.tif", "c:/a.tif", "http:/a/b.tif"]
)
def test_a_key_that_looks_a_little_like_a_url_is_a_key(key: str) -> None:
    assert S3.key_of(key) == key


@pytest.mark.parametrize(
    ("links", "url"),
    [
        (S3, "https://s3.amazonaws.com/images/uploads/a%20b.tif"),
        (S3, "https://s3.eu-west-1.amazonaws.com/images/uploads/a%20b.tif"),
        (S3, "https://images.s3.amazonaws.com/uploads/a%20b.tif"),
        (S3, "https://images.s3.us-east-2.amazonaws.com/uploads/a%20b.tif?X-Amz-Signature=0#/a.tif"),
        (S3, "s3://images/uploads/a b.tif"),
        (MINIO, "http://minio:9000/s3/images/uploads/a%20b.tif"),
        (GCS, "https://storage.googleapis.com/images/uploads/a%20b.tif"),
        (GCS, "https://images.storage.googleapis.com/uploads/a%20b.tif"),
        (GCS, "https://www.googleapis.com/storage/v1/b/images/o/uploads%2Fa%20b.tif"),
        (GCS, "gs://images/uploads/a b.tif"),
        (PREFIX, "gs://images/lab/one/uploads/a b.tif"),
        (AZURE, "https://lab.blob.core.windows.net/images/uploads/a%20b.tif"),
        (FOLDER, "file:///data/images/uploads/a%20b.tif"),
        (MEMORY, "memory:///uploads/a%20b.tif"),
    ],
)
@pytest.mark.parametrize("prefix", ["uploads", "uploads/plate 1/day", "uploads/"])
def test_a_path_that_the_client_makes_of_a_url_means_the_object(links: Links, url: str, prefix: str) -> None:
    """It takes the URL for a path, makes it relative to the folder of uploads, and puts that in front again."""
    path = f"{prefix}/{posixpath.relpath(url, prefix)}"
    for text in (path, f"/{path}", quote(path), path.replace("/", "\\"), posixpath.normpath(path), f"uploads/{url}"):
        assert links.key_of(text) == "uploads/a b.tif"


@pytest.mark.parametrize("links", ALL.values(), ids=list(ALL))
@pytest.mark.parametrize(
    "path",
    [
        "uploads/../https:/example.com/images/uploads/a.tif",
        "uploads/../https:/s3.amazonaws.com/other/uploads/a.tif",
        "uploads/../https:/storage.googleapis.com/images/../other/a.tif",
        "uploads/../s3:/images/../other/a.tif",
        "uploads/../gs:/other/a.tif",
        "uploads/..%2Fhttps%3A%2F%2Fexample.com%2Fa.tif",
        "uploads/../file:/data/images/../secret.tif",
        "uploads/../file:/etc/passwd",
        "uploads/../ftp:/images/a.tif",
        "uploads/../../etc/passwd",
        "../http:/",
    ],
)
def test_a_path_made_of_another_url_leads_nowhere(links: Links, path: str) -> None:
    with pytest.raises(InvalidJob):
        links.key_of(path)


def test_a_long_path_is_looked_at_in_time() -> None:
    with pytest.raises(InvalidJob):
        S3.key_of("uploads/" + "../" * 300_000 + "x")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("s3://images", BucketAddress("s3", "images")),
        ("gs://images/", BucketAddress("gs", "images")),
        ("GS://Images", BucketAddress("gs", "images")),
        ("az://container/plate/One", BucketAddress("az", "container", "plate/One")),
        ("file:///data/Bucket/", BucketAddress("file", "/data/Bucket")),
        ("file://localhost/data", BucketAddress("file", "/data")),
        ("file:///data/a%20b", BucketAddress("file", "/data/a b")),
        ("file:////data/../data", BucketAddress("file", "/data")),
        ("memory://", BucketAddress("memory", "")),
        ("memory://name", BucketAddress("memory", "name")),
        (" s3://images\n", BucketAddress("s3", "images")),
    ],
)
def test_known_urls_of_buckets(url: str, address: BucketAddress) -> None:
    assert BucketAddress.parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "images",
        "http://images",
        "s3://",
        "gs:///key",
        "file://host/data",
        "file://data",
        "file:relative",
        "s3://images?region=x",
        "gs://images#part",
        "s3://images/../other",
        "s3://images/a//b",
    ],
)
def test_anything_else_lists_what_is_allowed(url: str) -> None:
    with pytest.raises(SettingsError, match=r"STORAGE_BUCKET: .*file:///folder"):
        BucketAddress.parse(url)


def test_a_password_in_the_url_of_a_bucket_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="name or password before '@'") as caught:
        BucketAddress.parse("s3://user:geheim@images")
    assert "geheim" not in str(caught.value)


def test_the_url_is_given_back_in_its_plain_form() -> None:
    for url in ("s3://images", "gs://images/plate/1", "az://container", "file:///data", "memory://"):
        assert BucketAddress.parse(url).url == url


def test_full_keys_begin_with_the_prefix() -> None:
    assert BucketAddress("s3", "images").full_key("output/a.zip") == "output/a.zip"
    assert BucketAddress("s3", "images", "lab").full_key("output/a.zip") == "lab/output/a.zip"
