"""What keeps the slots of a worker alive and honest? The doorway of this room; it holds no logic."""

from redis_consumer.supervisor.limits import Limits
from redis_consumer.supervisor.loop import Supervisor
from redis_consumer.supervisor.slot import Link

__all__ = ["Limits", "Link", "Supervisor"]
