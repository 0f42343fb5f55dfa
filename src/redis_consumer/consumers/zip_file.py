"""What a zip of images becomes: in this version, a clear refusal to start."""

from redis_consumer.consumers.serving import UnavailableConsumer


class ZipFileConsumer(UnavailableConsumer):
    """Consumer of archives."""

    kind = "zip"
    instead = "run CONSUMER_TYPE=image and submit single images"
