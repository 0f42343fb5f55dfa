"""What the files of a result are called: after the scientist's own name, and safely so."""

from __future__ import annotations

from pathlib import PurePosixPath

#: Bytes of one part of a name: file systems allow 255, and ``_feature_<c>.tif`` comes behind.
MAX_PART_BYTES = 200
MAX_FOLDERS = 8
FALLBACK = "image"


def result_stem(original_name: str) -> PurePosixPath:
    """Folder and file name, without extension, for the results of an image.

    Parts that lead out of the result, control characters and what isn't UTF-8 are left out; long parts are cut.

    >>> result_stem("plate 1/../HeLa.tif")
    PurePosixPath('plate 1/HeLa')
    >>> result_stem("..tif")
    PurePosixPath('image')
    """
    name = PurePosixPath(original_name)
    folders = [part for part in map(_safe_part, name.parent.parts) if part]
    return PurePosixPath(*folders[-MAX_FOLDERS:], _safe_part(name.stem) or FALLBACK)


def _safe_part(part: str) -> str:
    kept = "".join(character for character in part if character.isprintable() and character not in "/\\")
    text = kept.encode("utf-8", "replace")[:MAX_PART_BYTES].decode("utf-8", "ignore").strip()
    return "" if not text.strip(".") else text
