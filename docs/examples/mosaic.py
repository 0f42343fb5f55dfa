"""A consumer that cuts a large image into quarters, lets other workers segment them, and counts all objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from redis_consumer import utils
from redis_consumer.consumers import Child, TensorFlowServingConsumer, second_phase
from redis_consumer.consumers.fan_out import inherited, reason_of_child
from redis_consumer.errors import InvalidImage
from redis_consumer.job import Job

SEGMENTING_QUEUE = "predict"


class Mosaic(TensorFlowServingConsumer):
    """Counts objects, a quarter of the image in each child."""

    def _consume(self, redis_hash: str) -> str:
        job = Job(redis_hash, self.redis.hgetall(redis_hash))
        with utils.get_tempdir() as folder:
            image = utils.get_image(self.storage.download(job.input_file_name, folder))
            return self.fan_out(self._quarters(job, image, folder), then="count")

    def _quarters(self, job: Job, image: np.ndarray, folder: str) -> Iterator[Child]:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        for row in range(2):
            for column in range(2):
                quarter = image[row * height :, column * width :][:height, :width]
                (path,) = utils.save_numpy_array(quarter, name=f"quarter_{row}_{column}", output_dir=folder)
                yield Child(SEGMENTING_QUEUE, Path(path).name, Path(path), inherited(job))

    @second_phase
    def count(self, redis_hash: str) -> str:
        """Add the numbers of all quarters."""
        objects = 0
        for child in self.child_jobs():
            if reason := reason_of_child(child):
                raise InvalidImage(f"{child.get('original_name')}: {reason}")
            objects += int(child.get("objects"))
        self.update_key(redis_hash, {"status": self.final_status, "objects": objects})
        return self.final_status
