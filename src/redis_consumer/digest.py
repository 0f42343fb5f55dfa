"""Computes the digest of a file."""

from __future__ import annotations

import hashlib
import os

_CHUNK_BYTES = 1 << 20


def file_digest(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """Return the digest of a file's bytes as hexadecimal digits, as the command ``sha256sum`` does.

    Args:
        path: the file.
        algorithm: a name that `hashlib` knows. The digest compares contents; it isn't used for security.

    Raises:
        OSError: the file can't be read.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
