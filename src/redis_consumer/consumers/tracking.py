"""What a tracking movie becomes: in this version, a clear refusal to start."""

from redis_consumer.consumers.serving import UnavailableConsumer


class TrackingConsumer(UnavailableConsumer):
    """Consumer of movies."""

    kind = "tracking"
    instead = "run CONSUMER_TYPE=image and submit single frames"
