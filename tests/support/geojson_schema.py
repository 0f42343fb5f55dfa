"""The schema of the GeoJSON that we write, by RFC 7946."""

from __future__ import annotations

from typing import Any

_RING = {
    "type": "array",
    "minItems": 4,
    "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}},
}
_POLYGON = {"type": "array", "minItems": 1, "items": _RING}


def _geometry(kind: str, coordinates: dict[str, Any]) -> dict[str, Any]:
    properties = {"type": {"const": kind}, "coordinates": coordinates}
    return {"type": "object", "required": ["type", "coordinates"], "properties": properties}


FEATURE_COLLECTION: dict[str, Any] = {
    "type": "object",
    "required": ["type", "features"],
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "geometry", "properties"],
                "properties": {
                    "type": {"const": "Feature"},
                    "id": {"type": ["string", "number"]},
                    "properties": {"type": ["object", "null"]},
                    "geometry": {
                        "oneOf": [
                            _geometry("Polygon", _POLYGON),
                            _geometry("MultiPolygon", {"type": "array", "minItems": 1, "items": _POLYGON}),
                        ]
                    },
                },
            },
        },
    },
}
