"""Reads the XML of an untrusted file."""

from __future__ import annotations

from xml.etree import ElementTree

from redis_consumer.errors import InvalidImage

#: Characters, and starts and ends of elements.
MAX_XML = 32 << 20
MAX_XML_TAGS = 500_000


def parse_xml(text: str, name: str) -> ElementTree.Element:
    """Parse XML without entities, and of limited size.

    Raises:
        InvalidImage: it is too large, or has a document type.
        Exception: whatever the parser raises for malformed XML.
    """
    # An entity may stand for any number of others.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InvalidImage(f"{name}: its XML holds a document type, which no microscope writes; export it again")
    tags = text.count("<")
    if len(text) > MAX_XML or tags > MAX_XML_TAGS:
        raise InvalidImage(
            f"{name}: its XML has {len(text)} characters and {tags} tags, allowed are {MAX_XML} and {MAX_XML_TAGS}; "
            "export it as OME-TIFF"
        )
    return ElementTree.fromstring(text)  # noqa: S314 - it has no entities, and no more elements than allowed
