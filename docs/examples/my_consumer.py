"""A consumer that returns the raw predictions of its model.

Run it from this folder: ``CONSUMER_TYPE=my_consumer:MyConsumer QUEUE=raw redis-consumer run``.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from redis_consumer import utils
from redis_consumer.consumers import TensorFlowServingConsumer
from redis_consumer.job import Job
from redis_consumer.processing import percentile_normalize


class MyConsumer(TensorFlowServingConsumer):
    """Sends the image of a job to the model that the job names, and uploads the model's outputs."""

    def _consume(self, redis_hash: str) -> str:
        # Everything that the producer wrote. Job reads it as typed values, with readable errors.
        job = Job(redis_hash, self.redis.hgetall(redis_hash))
        self.update_key(redis_hash, {"status": "started"})

        # This folder is removed at the end of the block.
        with utils.get_tempdir() as folder:
            image = utils.get_image(self.storage.download(job.input_file_name, folder))

            # Before the model: one image as a batch of one, stretched to 0..1.
            prepared = percentile_normalize(image[np.newaxis])[0]

            self.update_key(redis_hash, {"status": "predicting"})
            answer = self.grpc_image(prepared, job.get("model_name"), job.get("model_version"))

            # After the model: its one output, or its list of outputs, without the batch of one.
            maps = [each[0] for each in (answer if isinstance(answer, list) else [answer])]
            peak = max(float(each.max()) for each in maps)

            # One TIFF for each channel, then all of them in one archive, kept apart from the input.
            name = PurePosixPath(job.original_name)
            files = utils.save_numpy_array(maps, name=name.stem, subdir="predictions", output_dir=folder)
            object_key, url = self.storage.upload(utils.zip_files(files, folder))

        # A final status ends the job together with its result.
        self.update_key(
            redis_hash,
            {"status": self.final_status, "output_file_name": object_key, "output_url": url, "peak": peak},
        )
        return self.final_status
