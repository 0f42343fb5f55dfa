"""Which text do others take: UTF-8, with a question mark for what it can't hold?"""


def in_utf8(text: str) -> str:
    r"""Write ``?`` for each character that isn't UTF-8, as a name in a folder, a bucket or an archive may have them.

    >>> in_utf8("plate \udcff.tif")
    'plate ?.tif'
    """
    return text.encode("utf-8", "replace").decode("utf-8")
