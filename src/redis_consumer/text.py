"""Makes texts of users safe to show and to name files by, reads numbers and URLs from them, and digests files.

Reasons, log lines, tables and messages quote texts of producers. Each of these places shortens them with `cut`.
"""

from __future__ import annotations

import hashlib
import math
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, get_args
from urllib.parse import unquote, urlsplit

#: Characters of a line that may quote others: a message, a table's cell, a log line's value.
MAX_LINE = 1000
#: Characters of a text of several lines, such as a reason with its traceback.
MAX_TEXT = 8000
_MAX_QUOTED = 50
#: Largest size of one part of a name, in bytes. File systems allow 255, and ``_feature_<c>.tif`` is added.
MAX_PART_BYTES = 200
MAX_FOLDERS = 8
FALLBACK = "image"
MASK = "********"

#: Control and format characters, halves of pairs, ends of lines and of paragraphs.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_FORMULA = frozenset("=+-@")
#: Characters that names on Windows can't have, and names of its devices, with any ending.
_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*]')
_DEVICE = re.compile(r"con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]", re.IGNORECASE)
_SIGNATURES = re.compile(
    r"(?i)((?:x-amz-signature|x-amz-credential|x-goog-signature|x-goog-credential|sig)=)[^&\s\"']+"
)
_PASSWORDS = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")

#: An absolute path in a text, and its last part; not one within a URL.
_PATH = re.compile(r"(?<![\w:/.])/(?:[^\s/'\",;:]+/)*([^\s/'\",;:]+)")

_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?")

#: A URL behind any folders, with one slash or several behind its scheme.
_URL_IN_PATH = re.compile(
    r"/*(?:[^/:]+/+)*(?P<scheme>https?|s3|gs|az|file|memory):/+(?P<rest>[^/].*)",
    re.IGNORECASE | re.DOTALL,
)


def in_utf8(text: str) -> str:
    r"""Replace each character that isn't UTF-8 by ``?``. Names in folders, buckets and archives can contain them.

    >>> in_utf8("plate \udcff.tif")
    'plate ?.tif'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def cut(text: str, most: int = MAX_LINE) -> str:
    """Shorten a long text in its middle, because its end often says what to do.

    >>> cut("x" * 5000, 50)
    'xxxxxxxxxx… 4,980 characters left out …xxxxxxxxxx'

    Args:
        text: any text.
        most: characters that the result has at most.
    """
    if len(text) <= most:
        return text
    kept = max(most - len(f"… {len(text):,} characters left out …"), 0) // 2
    return f"{text[:kept]}… {len(text) - 2 * kept:,} characters left out …{text[len(text) - kept :]}"


def printable(text: str) -> str:
    r"""Shorten a text and replace terminal control characters, which file names, keys and reasons may contain.

    >>> printable("a\x1b[2Jb")
    'a?[2Jb'
    """
    short = cut(text, MAX_TEXT)
    return "".join(character if character.isprintable() or character in "\n\t" else "?" for character in short)


def last_line(reason: str) -> str:
    """Return the last line of a job's reason, which says what is wrong and what to do."""
    lines = reason.strip().splitlines()
    return lines[-1] if lines else ""


def without_paths(text: str) -> str:
    """Replace each absolute path in a text by its last part, so that users see no paths of the machine. URLs stay.

    >>> without_paths("cannot open /tmp/job/cells.tif, see https://example.org/help")
    'cannot open cells.tif, see https://example.org/help'
    """
    return _PATH.sub(r"\1", text)


def quoted(text: str) -> str:
    """Quote a value for a message. Only the beginning of a long value is quoted.

    >>> quoted("twice")
    "'twice'"
    """
    return repr(text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…")


def cell(text: str) -> str:
    """Make a text safe as a cell of a table for spreadsheets: shortened, on one line, and no formula.

    A spreadsheet detects a formula by the first character of a cell, also after spaces and in full width. An apostrophe
    before it prevents this. Numbers are unchanged.

    >>> cell("=1+1"), cell("-0.5"), cell("a\\tb")
    ("'=1+1", '-0.5', 'a?b')
    """
    plain = "".join("?" if unicodedata.category(each) in _UNSEEN else each for each in cut(text))
    first = unicodedata.normalize("NFKC", plain).lstrip()[:1]
    return f"'{plain}" if first in _FORMULA and not _DECIMAL.fullmatch(plain) else plain


def whole(text: str) -> int:
    """Read a whole number: ASCII digits with an optional sign.

    >>> whole("-12")
    -12

    Raises:
        ValueError: it isn't written so, or has more than 19 digits.
    """
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError(f"{quoted(text)} is no whole number")
    return int(text)


def decimal(text: str) -> float:
    """Read a number: ASCII digits with an optional point, sign or exponent.

    >>> decimal("0.5"), decimal("1e-3")
    (0.5, 0.001)

    Raises:
        ValueError: it isn't written so, is longer than 30 digits on a side, or is beyond what a float can be.
    """
    value = float(text) if _DECIMAL.fullmatch(text.strip()) else math.inf
    if math.isinf(value):
        raise ValueError(f"{quoted(text)} is no number")
    return value


def check_numbers(kind: Any, value: object) -> None:
    """Refuse a text, or one of several, that would become a number of a setting or option without being written as one.

    Args:
        kind: annotation of the field; texts for a type without numbers pass.
        value: what was given; values that are no texts pass.

    Raises:
        ValueError: a text isn't what `decimal` reads, but Python takes it: ``1_0``, ``inf``, other digits.
    """
    kinds = list(_kinds_in(kind))  # some can't be hashed
    if str in kinds or not (int in kinds or float in kinds):
        return
    for text in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(text, str) and _is_odd(text):
            raise ValueError("must be a number in plain digits, e.g. 10")


def _is_odd(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        try:
            decimal(text)
        except ValueError:
            return True
    return False


def _kinds_in(kind: Any) -> Iterator[Any]:
    yield kind
    for part in get_args(kind):
        yield from _kinds_in(part)


def url_in_path(text: str) -> str | None:
    """Return the URL that a path was made of, None if it is no such path.

    The kiosk's client takes the URL of an upload for a path, and makes it relative to the folder of uploads.

    >>> url_in_path("uploads/../https:/host/bucket/uploads/a.tif")
    'https://host/bucket/uploads/a.tif'
    >>> url_in_path("uploads/plate/a.tif")

    Args:
        text: an object key or a file name; percent-encoded or not, with slashes or Windows' own separators.
    """
    for path in (text, unquote(text)):
        match = _URL_IN_PATH.fullmatch(path.replace("\\", "/"))
        if match is not None:
            scheme = match["scheme"].lower()
            return f"{scheme}://{'/' if scheme in {'file', 'memory'} else ''}{match['rest']}"
    return None


def result_stem(original_name: str) -> PurePosixPath:
    """Return folder and file name, without extension, for the results of an image.

    Parts that lead out of the result, control characters and bytes that aren't UTF-8 are removed. Characters and names
    that Windows doesn't allow are replaced, and long parts are cut. Of a URL, only the last part is used.

    >>> result_stem("plate 1/../HeLa.tif")
    PurePosixPath('plate 1/HeLa')
    >>> result_stem("../https:/host/bucket/uploads/HeLa%201.tif")
    PurePosixPath('HeLa 1')
    >>> result_stem("..tif")
    PurePosixPath('image')
    >>> result_stem("12:30 well*?.tif")
    PurePosixPath('12_30 well__')
    """
    url = url_in_path(original_name)
    name = PurePosixPath(original_name if url is None else posixpath.basename(unquote(urlsplit(url).path)))
    folders = [part for part in map(_portable_part, name.parent.parts) if part]
    return PurePosixPath(*folders[-MAX_FOLDERS:], _portable_part(name.stem) or FALLBACK)


def shown_name(original_name: str) -> str:
    """Return the file's name for messages, without folders, on one line and of limited length.

    >>> shown_name("plate 1/HeLa.tif")
    'HeLa.tif'
    """
    return _safe_part(PurePosixPath(original_name).name) or FALLBACK


def _portable_part(part: str) -> str:
    """Return a part of a name that is also one on Windows."""
    text = _NOT_ON_WINDOWS.sub("_", _safe_part(part)).rstrip(" .")
    base, dot, rest = text.partition(".")
    return f"{base}_{dot}{rest}" if _DEVICE.fullmatch(base.strip()) else text


def _safe_part(part: str) -> str:
    kept = "".join(character for character in part if character.isprintable() and character not in "/\\")
    text = kept.encode("utf-8", "replace")[:MAX_PART_BYTES].decode("utf-8", "ignore").strip()
    return "" if not text.strip(".") else text


_CHUNK_BYTES = 1 << 20


def mask_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """Mask the given secrets, the signatures of signed links and the passwords of addresses in a text.

    >>> mask_secrets("redis://:hunter2@host/0 and link?X-Amz-Signature=abc&x=1")
    'redis://:********@host/0 and link?X-Amz-Signature=********&x=1'
    """
    for secret in secrets:
        text = text.replace(secret, MASK)
    # Most lines have none of these, and this is much cheaper than to search for the patterns.
    if "=" in text:
        text = _SIGNATURES.sub(rf"\1{MASK}", text)
    return _PASSWORDS.sub(rf"\1{MASK}@", text) if "@" in text else text


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
