"""Four consumers in the style of 2023, written for these tests from the contract."""

from __future__ import annotations

import os
import tempfile
import timeit
from typing import Any

import numpy as np

from redis_consumer import settings, utils
from redis_consumer.consumers import TensorFlowServingConsumer


class Segmenting(TensorFlowServingConsumer):
    """An application of the settings, asked through the model server."""

    def _consume(self, redis_hash: str) -> str:
        start = timeit.default_timer()
        hvals = self.redis.hgetall(redis_hash)
        if hvals.get("status") in self.finished_statuses:
            return str(hvals.get("status"))
        self.update_key(redis_hash, {"status": "started", "identity_started": self.name})
        image = self.download_image(hvals.get("input_file_name"))
        scale = self.get_image_scale(hvals.get("scale", ""), image, redis_hash)
        image = np.expand_dims(np.expand_dims(image, axis=0), axis=-1)
        self.update_key(redis_hash, {"status": "predicting"})
        label = 0
        app_cls = settings.APPLICATION_CHOICES[label]
        app = self.get_grpc_app(settings.MODEL_CHOICES[label], app_cls, preprocessing_fn=None)
        batch_size = min(32, app.model.get_batch_size())
        results = app.predict(
            image,
            batch_size=batch_size,
            image_mpp=scale * app.model_mpp,
            postprocess_kwargs={"maxima_threshold": 0.1, "interior_threshold": 0.2, "radius": 3},
        )
        self.update_key(redis_hash, {"status": "saving-results"})
        dest, output_url = self.save_output(results, hvals.get("original_name"))
        self.update_key(
            redis_hash,
            {
                "status": self.final_status,
                "output_url": output_url,
                "output_file_name": dest,
                "upload_time": timeit.default_timer() - start,
                "total_jobs": 1,
                "total_time": timeit.default_timer() - start,
                "finished_at": self.get_current_timestamp(),
            },
        )
        return self.final_status


class Multiplexing(TensorFlowServingConsumer):
    """Chooses channels by a list, detects the order of dimensions, and asks a wrapped model."""

    def _consume(self, redis_hash: str) -> str:
        hvals = self.redis.hgetall(redis_hash)
        model_name, model_version = hvals["model_name"], hvals["model_version"]
        self.update_key(redis_hash, {"status": "started", "identity_started": settings.HOSTNAME})
        image = np.expand_dims(np.squeeze(self.download_image(hvals["input_file_name"])), axis=0)
        dim_order = self.detect_dimension_order(image, model_name, model_version)
        self.update_key(redis_hash, {"dim_order": ",".join(dim_order)})
        channels = [int(c) for c in hvals["channels"].split(",") if c]
        image = self.validate_model_input(image, model_name, model_version, channels=channels)
        model = self.get_model_wrapper(f"{model_name}:{model_version}")
        results = model.predict(image[:, : model.input_shape[1], : model.input_shape[2]])
        by_name = dict(zip(model.output_names, results, strict=True))
        dest, output_url = self.save_output(by_name["prediction_3"], hvals["original_name"])
        self.update_key(redis_hash, {"status": self.final_status, "output_url": output_url, "output_file_name": dest})
        return self.final_status


class OwnApp:
    """An application of an author's own, made as those of a library are."""

    def __init__(self, model: Any, model_mpp: float = 0.65, add: float = 0.0) -> None:
        self.model = model
        self.model_mpp = model_mpp
        self.add = add

    def predict(self, image: Any, batch_size: int = 4, **kwargs: Any) -> Any:
        return self.model.predict(image, batch_size=batch_size) + self.add


class OwnApplication(TensorFlowServingConsumer):
    """Takes keyword arguments only, as consumers of 2023 do, and writes a table beside its images."""

    def __init__(self, redis_client: Any, storage_client: Any, queue: str, **kwargs: Any) -> None:
        kwargs.setdefault("name", settings.HOSTNAME)
        super().__init__(redis_client, storage_client, queue, **kwargs)

    def _consume(self, redis_hash: str) -> str:
        hvals = self.redis.hgetall(redis_hash)
        with tempfile.TemporaryDirectory() as tempdir:
            fname = self.storage.download(hvals.get("input_file_name"), tempdir)
            image = np.expand_dims(utils.get_image(fname), axis=0)
            app = self.get_grpc_app(f"{hvals['model_name']}:{hvals['model_version']}", OwnApp, add=0.5)
            results = app.predict(image, batch_size=1)
            save_name = os.path.join(tempdir, os.path.splitext(os.path.basename(hvals["original_name"]))[0])
            np.save(f"{save_name}.npy", results)
            with open(f"{save_name}.csv", "w", encoding="utf-8") as csv:
                csv.write(f"x,y,value\n0,0,{results[0, 0, 0, 0]:g}\n")
            zip_file = utils.zip_files([f"{save_name}.npy", f"{save_name}.csv"], tempdir)
            dest, output_url = self.storage.upload(zip_file)
        self.update_key(redis_hash, {"status": self.final_status, "output_url": output_url, "output_file_name": dest})
        return self.final_status


class Parents(TensorFlowServingConsumer):
    """Makes a child job for another queue by itself, polls it, and takes over its result."""

    def _consume(self, redis_hash: str) -> str:
        hvals = self.redis.hgetall(redis_hash)
        child = f"children:{hvals['original_name']}:0123456789abcdef0123456789abcdef"
        now = self.get_current_timestamp()
        fields = {
            "original_name": hvals["original_name"],
            "input_file_name": hvals["input_file_name"],
            "status": "new",
            "model_name": hvals["model_name"],
            "model_version": hvals["model_version"],
            "identity_upload": self.name,
            "created_at": now,
            "updated_at": now,
        }
        self.redis.hmset(child, fields)
        self.redis.lpush("children", child)
        other = type(self).__bases__[0]
        assert other is TensorFlowServingConsumer
        worker = OwnApplication(self.redis, self.storage, "children", name=self.name)
        while self.redis.hget(child, "status") not in worker.finished_statuses:
            worker.consume()
            self.update_key(redis_hash, {"progress": 50})
        if self.redis.hget(child, "status") == self.failed_status:
            raise RuntimeError(self.redis.hget(child, "reason"))
        dest = self.redis.hget(child, "output_file_name")
        self.redis.expire(child, settings.EXPIRE_TIME)
        self.update_key(
            redis_hash,
            {
                "status": self.final_status,
                "output_file_name": dest,
                "output_url": self.storage.get_public_url(dest),
            },
        )
        return self.final_status
