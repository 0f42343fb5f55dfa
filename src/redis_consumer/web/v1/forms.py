"""Describes the consumers and the options that a job can set, as JSON.

It runs in a process of its own (``python -m redis_consumer.web.v1.forms TYPE``), since it imports all consumers.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.catalogue import help_of
from redis_consumer.consumers.image import ImageFileConsumer
from redis_consumer.consumers.options import is_per_job
from redis_consumer.consumers.registry import BUILT_IN, find, plugins
from redis_consumer.consumers.tracking import TrackingConsumer
from redis_consumer.errors import SettingsError
from redis_consumer.job import COMPARTMENTS, SEGMENTATION_TYPES
from redis_consumer.segmentation.cell_outputs import CELL_OUTPUTS

_TITLES = {
    "image": "Nuclei or cells", "zip": "Archive of images", "segmentation": "Nuclei and cytoplasm", "mesmer": "Tissue",
    "multiplex": "Tissue (multiplex)", "spot": "Spots", "polaris": "Spots in cells", "tracking": "Cells in a movie",
    "caliban": "Cells in a movie (kiosk)",
}  # fmt: skip
#: Fields that all consumers of images read, as JSON Schema.
_IMAGE: dict[str, Any] = {
    "scale": {
        "type": "number", "exclusiveMinimum": 0, "title": "Scale",
        "description": "Factor by which the image is resized first. Empty: from the pixel size or an estimate.",
    },
    "object_diameter_px": {
        "type": "number", "exclusiveMinimum": 0, "title": "Diameter of an object",
        "description": "Usual diameter of the objects in pixels, instead of the scale.",
    },
    "channels": {
        "type": "string", "maxLength": 1000, "title": "Channels",
        "description": "Indices or names of the channels for the roles of the model, joined by commas.",
    },
    "dimension_order": {
        "type": "string", "pattern": "^([TCZYXBtczyxb]{2,6})?$", "title": "Axes",
        "description": "Axes of the image, e.g. TCZYX. Empty: as in the file.",
    },
    "z": {
        "type": "string", "pattern": "^(each|max|mean|link|[0-9]{1,7})?$", "title": "Planes of a z stack",
        "description": "each, max, mean, link, or the number of a plane.",
    },
    "field_of_view": {
        "type": "string", "maxLength": 255, "title": "Field of view",
        "description": "Number of one of several images in the file.",
    },
    "scale_shared": {
        "type": "boolean", "title": "One scale for all images",
        "description": "All images of an archive have the scale of the first one.",
    },
    "label": {
        "type": "string", "pattern": "^([0-3]|99)?$", "title": "Kind of image",
        "description": "Index into the model choices of the operator.",
    },
    "preprocess_function": {
        "type": "string", "maxLength": 1000, "title": "Functions before the model",
        "description": "Names joined by commas. Empty: those of the model.",
    },
    "postprocess_function": {
        "type": "string", "maxLength": 1000, "title": "Functions after the model",
        "description": "Names joined by commas. Empty: those of the model.",
    },
}  # fmt: skip
_MESMER = {"compartment": {"type": "string", "enum": ["", *COMPARTMENTS], "title": "Compartment"}}
_SPOTS = {"segmentation_type": {"type": "string", "enum": ["", *SEGMENTATION_TYPES], "title": "Segmentation"}}
_EXTRA: dict[str, dict[str, Any]] = {"mesmer": _MESMER, "multiplex": _MESMER, "polaris": _SPOTS}
#: Options of functions, such as ``deep_watershed.radius``. Workers check them, since the model's card decides.
_FUNCTIONS = {r"^[A-Za-z_]\w{0,99}\.[A-Za-z_]\w{0,99}$": {"type": "string", "maxLength": 1000}}
_ROLES = {
    "segmentation": (("nuclei", "Nuclei", False), ("cytoplasm", "Cytoplasm", False)),
    "mesmer": (("nuclei", "Nuclei", True), ("membrane", "Membrane or cytoplasm", False)),
    "multiplex": (("nuclei", "Nuclei", True), ("membrane", "Membrane or cytoplasm", False)),
    "polaris": (("spots", "Spots", True), ("nuclei", "Nuclei", False), ("cytoplasm", "Cytoplasm", False)),
    "spot": (("spots", "Spots", True),),
}


def form_of(name: str, found: type[Consumer]) -> dict[str, Any]:
    """Describe a consumer.

    Args:
        name: its type.
        found: its class. Its options that are `per_job` become the form, without more work of its author.

    Returns:
        KIND of the API, and ``class``.
    """
    schema = found.Options.model_json_schema()
    own = {option: rule for option, rule in schema.get("properties", {}).items() if is_per_job(found.Options, option)}
    is_image = issubclass(found, (ImageFileConsumer, TrackingConsumer)) or name == "zip"
    properties = {**(_IMAGE if is_image else {}), **_EXTRA.get(name, {}), **own}
    form: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if is_image:
        form["patternProperties"] = _FUNCTIONS
    if "$defs" in schema:
        form["$defs"] = schema["$defs"]
    roles = _ROLES.get(name, (("image", "Image", False),) if is_image else ())
    return {
        "name": name,
        "class": found.__name__,
        "title": _TITLES.get(name, name.rpartition(":")[2].replace("_", " ").capitalize()),
        "description": help_of(found),
        "options_schema": form,
        "outputs": list(CELL_OUTPUTS) if is_image else [],
        "roles": [{"name": role, "title": title, "required": required} for role, title, required in roles],
    }


def main(consumer_type: str) -> None:
    """Print the forms of all consumers that can be imported, the one of the settings included."""
    forms = []
    for name in dict.fromkeys([*BUILT_IN, *sorted(plugins()), consumer_type]):
        try:
            forms.append(form_of(name, find(name)))
        except SettingsError:
            continue  # `redis-consumer consumers` shows why
    sys.stdout.write(json.dumps(forms) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
