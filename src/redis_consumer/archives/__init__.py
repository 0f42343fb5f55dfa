"""Packs files into archives and unpacks archives safely."""

from redis_consumer.archives.members import Member, iter_members
from redis_consumer.archives.packing import ResultZip, check_result_zip, pack_folder, zip_files
from redis_consumer.archives.unpacking import cd, get_image_files_from_dir, get_tempdir, iter_image_archive
from redis_consumer.options import ArchiveLimits

__all__ = [
    "ArchiveLimits",
    "Member",
    "ResultZip",
    "cd",
    "check_result_zip",
    "get_image_files_from_dir",
    "get_tempdir",
    "iter_image_archive",
    "iter_members",
    "pack_folder",
    "zip_files",
]
