"""Four consumers in the style of the middle of 2020, written for these tests from the contract."""

from __future__ import annotations

import json
import os
import timeit
from typing import Any

import numpy as np

from redis_consumer import settings, utils
from redis_consumer.consumers import ImageFileConsumer, TensorFlowServingConsumer
from redis_consumer.grpc_clients import GrpcModelWrapper, PredictClient


class Predicting(TensorFlowServingConsumer):
    """`predict` by name and version, for an image of any size; saves by `save_output`'s older way."""

    def _consume(self, redis_hash: str) -> str:
        start = timeit.default_timer()
        hvals = self.redis.hgetall(redis_hash)
        self._redis_hash = redis_hash
        self._redis_values = hvals
        if hvals.get("status") in self.finished_statuses:
            return str(hvals.get("status"))
        self.update_key(redis_hash, {"status": "started", "identity_started": self.name})
        with utils.get_tempdir() as tempdir:
            image: Any = utils.get_image(self.storage.download(hvals.get("input_file_name"), tempdir))
            model_name, model_version = hvals.get("model_name"), hvals.get("model_version")
            self.update_key(redis_hash, {"status": "predicting", "download_time": timeit.default_timer() - start})
            image = self.predict(image, model_name, model_version)
            image = np.squeeze(image, axis=0)
            outpaths = utils.save_numpy_array(image, name="predicted", output_dir=tempdir)
            dest, output_url = self.storage.upload(utils.zip_files(outpaths, tempdir))
        t = timeit.default_timer() - start
        self.update_key(
            redis_hash,
            {
                "status": self.final_status,
                "output_url": output_url,
                "output_file_name": dest,
                "total_jobs": 1,
                "total_time": t,
                "finished_at": self.get_current_timestamp(),
            },
        )
        return self.final_status


class OwnClient(TensorFlowServingConsumer):
    """Makes the client of the model server itself, and sends requests by tensor name."""

    def _get_predict_client(self, model_name: str, model_version: Any) -> Any:
        hostname = f"{settings.TF_HOST}:{settings.TF_PORT}"
        return PredictClient(hostname, model_name, int(model_version))

    def _consume(self, redis_hash: str) -> str:
        hvals = self.redis.hgetall(redis_hash)
        self._redis_hash = redis_hash
        with utils.get_tempdir() as tempdir:
            image = utils.get_image(self.storage.download(hvals.get("input_file_name"), tempdir))
            client = self._get_predict_client(hvals["model_name"], hvals["model_version"])
            request = [
                {
                    "in_tensor_name": settings.TF_TENSOR_NAME,
                    "in_tensor_dtype": settings.TF_TENSOR_DTYPE,
                    "data": np.expand_dims(image, axis=0),
                }
            ]
            prediction = client.predict(request, settings.GRPC_TIMEOUT)
            results = [prediction[k] for k in sorted(prediction) if k.startswith("prediction")]
            again = self.grpc_image(image, hvals["model_name"], hvals["model_version"])
            np.testing.assert_array_equal(again, results[0])
            described = self.get_model_metadata(hvals["model_name"], hvals["model_version"])
            self.update_key(redis_hash, {"status": "saving-results", "inputs": json.dumps(described)})
            outpaths = utils.save_numpy_array(results, name="own", output_dir=tempdir)
            dest, url = self.storage.upload(utils.zip_files(outpaths, tempdir))
        self.update_key(redis_hash, {"status": self.final_status, "output_url": url, "output_file_name": dest})
        return self.final_status


class Tiling(TensorFlowServingConsumer):
    """Cuts an image into the model's tiles itself, as its metadata have them."""

    def _consume(self, redis_hash: str) -> str:
        hvals = self.redis.hgetall(redis_hash)
        model_name, model_version = hvals["model_name"], hvals["model_version"]
        with utils.get_tempdir() as tempdir:
            image = utils.get_image(self.storage.download(hvals.get("input_file_name"), tempdir))
            metadata = self.get_model_metadata(model_name, model_version)
            shape = [int(x) for x in metadata[0]["in_tensor_shape"].split(",")]
            side = shape[1]
            client = self._get_predict_client(model_name, model_version)
            model = GrpcModelWrapper(client, metadata)
            stack = np.squeeze(image)[np.newaxis]
            tiles, _ = utils.reshape_matrix(stack, stack, side)
            outputs = model.predict(tiles, batch_size=2)
            assert isinstance(outputs, list)
            named = dict(zip(model.output_names, outputs, strict=True))
            rows = int(np.sqrt(len(tiles)))
            grid = named["prediction_1"].reshape(rows, rows, side, side, 1)
            whole = grid.swapaxes(1, 2).reshape(rows * side, rows * side, 1)
            outpaths = utils.save_numpy_array(whole, name="tiled", output_dir=tempdir)
            dest, url = self.storage.upload(utils.zip_files(outpaths, tempdir))
        self.update_key(redis_hash, {"status": self.final_status, "output_url": url, "output_file_name": dest})
        return self.final_status


class Measuring(ImageFileConsumer):
    """Lets the base class do the job, and replaces two of its steps."""

    def preprocess(self, image: Any, keys: Any, streaming: bool = False) -> Any:
        image = super().preprocess(image, keys, streaming)
        return np.clip(image, 0, None)

    def predict(self, image: Any, model_name: str, model_version: Any) -> Any:  # type: ignore[override]
        self.update_key(self._redis_hash or "", {"asked": f"{model_name}/{model_version}"})
        prediction: Any = super().predict(image, model_name, model_version)
        return prediction + 1

    def is_valid_hash(self, redis_hash: str | None) -> bool:
        if redis_hash is None:
            return False
        name = str(self.redis.hget(redis_hash, "input_file_name"))
        return os.path.splitext(name)[1].lower() in {".tif", ".tiff", ".png"}
