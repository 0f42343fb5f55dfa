"""Gives the consumers by the names in the documentation. Each is loaded at its first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis_consumer.consumers.base import Consumer
    from redis_consumer.consumers.fan_out import Child, second_phase
    from redis_consumer.consumers.image import ImageFileConsumer
    from redis_consumer.consumers.kiosk_segmentation import SegmentationConsumer
    from redis_consumer.consumers.mesmer import MesmerConsumer
    from redis_consumer.consumers.mesmer import MesmerConsumer as MultiplexConsumer
    from redis_consumer.consumers.options import ConsumerOptions, per_job
    from redis_consumer.consumers.polaris import PolarisConsumer
    from redis_consumer.consumers.serving import TensorFlowServingConsumer
    from redis_consumer.consumers.spot import SpotConsumer
    from redis_consumer.consumers.tracking import TrackingConsumer
    from redis_consumer.consumers.tracking import TrackingConsumer as CalibanConsumer
    from redis_consumer.consumers.zip_file import ZipFileConsumer
    from redis_consumer.segmentation.results import Analysis

    #: Consumer type to class; what a script adds is found by its type too.
    CONSUMERS: dict[str, type[Consumer]]

__all__ = [
    "CONSUMERS",
    "Analysis",
    "CalibanConsumer",
    "Child",
    "Consumer",
    "ConsumerOptions",
    "ImageFileConsumer",
    "MesmerConsumer",
    "MultiplexConsumer",
    "PolarisConsumer",
    "SegmentationConsumer",
    "SpotConsumer",
    "TensorFlowServingConsumer",
    "TrackingConsumer",
    "ZipFileConsumer",
    "per_job",
    "second_phase",
]

_MODULES = {
    "Analysis": "redis_consumer.segmentation.results",
    "CalibanConsumer": ".tracking",
    "Child": ".fan_out",
    "Consumer": ".base",
    "ConsumerOptions": ".options",
    "ImageFileConsumer": ".image",
    "MesmerConsumer": ".mesmer",
    "MultiplexConsumer": ".mesmer",
    "PolarisConsumer": ".polaris",
    "SegmentationConsumer": ".kiosk_segmentation",
    "SpotConsumer": ".spot",
    "TensorFlowServingConsumer": ".serving",
    "TrackingConsumer": ".tracking",
    "ZipFileConsumer": ".zip_file",
    "per_job": ".options",
    "second_phase": ".fan_out",
}
_OLDER_NAMES = {"CalibanConsumer": "TrackingConsumer", "MultiplexConsumer": "MesmerConsumer"}


def __getattr__(name: str) -> Any:
    if name == "CONSUMERS":
        from redis_consumer.consumers import registry

        return registry.types()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name], __name__), _OLDER_NAMES.get(name, name))
