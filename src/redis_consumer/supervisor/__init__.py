"""Keeps the slots of a worker running. This module only exports names."""

from redis_consumer.supervisor.limits import Limits
from redis_consumer.supervisor.loop import Supervisor
from redis_consumer.supervisor.slot import Link

__all__ = ["Limits", "Link", "Supervisor"]
