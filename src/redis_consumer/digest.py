"""Which digest has the content of a file?"""

from __future__ import annotations

import hashlib
import os

_CHUNK_BYTES = 1 << 20


def file_digest(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """Give the digest of a file's bytes as hexadecimal digits, as the command ``sha256sum`` does.

    Args:
        path: the file.
        algorithm: a name that `hashlib` knows; it is to tell contents apart, not to keep secrets.

    Raises:
        OSError: the file can't be read.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
