"""Four consumers in the style of early 2020, written for these tests from the contract."""

from __future__ import annotations

import os
import timeit
from typing import Any

import numpy as np

from redis_consumer import processing, settings, utils
from redis_consumer.consumers import Consumer, ImageFileConsumer, TensorFlowServingConsumer


class Doubling(TensorFlowServingConsumer):
    """One image, one call of the model; each stage is timed and written."""

    def is_valid_hash(self, redis_hash: str | None) -> bool:
        if redis_hash is None:
            return False
        fname = str(self.redis.hget(redis_hash, "input_file_name"))
        return not fname.lower().endswith(".zip")

    def _consume(self, redis_hash: str) -> str:
        start = timeit.default_timer()
        self._redis_hash = redis_hash
        hvals = self.redis.hgetall(redis_hash)
        self._redis_values = hvals
        self.logger.debug("Found hash %s: %s", redis_hash, hvals)
        if hvals.get("status") in self.finished_statuses:
            return str(hvals.get("status"))

        self.update_key(redis_hash, {"status": "started", "identity_started": self.hostname})
        with utils.get_tempdir() as tempdir:
            fname = self.storage.download(hvals.get("input_file_name"), tempdir)
            image = utils.get_image(fname)
            self.update_key(
                redis_hash, {"status": "predicting", "download_time": timeit.default_timer() - start, "retried": False}
            )
            results = self.grpc_image(image, hvals.get("model_name"), hvals.get("model_version"))
            self.update_key(redis_hash, {"status": "saving-results"})
            save_name = hvals.get("original_name", fname)
            subdir = os.path.dirname(save_name.replace(tempdir, ""))
            name = os.path.splitext(os.path.basename(save_name))[0]
            outpaths = utils.save_numpy_array(results, name=name, subdir=subdir, output_dir=tempdir)
            zip_file = utils.zip_files(outpaths, tempdir)
            dest, output_url = self.storage.upload(zip_file)
            self.update_key(
                redis_hash,
                {
                    "status": self.final_status,
                    "output_url": output_url,
                    "output_file_name": dest,
                    "finished_at": self.get_current_timestamp(),
                    "total_time": timeit.default_timer() - start,
                },
            )
        return self.final_status


class Cutting(TensorFlowServingConsumer):
    """Rescales, labels and cuts an image by the helpers of the base class and of `utils`."""

    def __init__(self, redis_client: Any, storage_client: Any, queue: str, final_status: str = "done") -> None:
        super().__init__(redis_client, storage_client, queue, final_status)
        self.output_dir = settings.OUTPUT_DIR

    def _consume(self, redis_hash: str) -> str:
        hvals = self.redis.hgetall(redis_hash)
        self._redis_hash = redis_hash
        self._redis_values = hvals
        with utils.get_tempdir() as tempdir:
            image = utils.get_image(self.storage.download(hvals["input_file_name"], tempdir))
            scale = hvals.get("scale", "")
            scale = self.detect_scale(image) if not scale else float(scale)
            label = self.detect_label(image)
            model_name, model_version = utils._pick_model(label)
            self.update_key(redis_hash, {"scale": scale, "label": label, "post": utils._pick_postprocess(label)})
            small = utils.rescale(image, scale)
            field = hvals.get("field_size", 61)
            big = self.process_big_image(hvals["cuts"], small, field, model_name, model_version)
            restored = utils.rescale(np.squeeze(big)[..., np.newaxis], 1 / scale)
            paths = utils.save_numpy_array(restored, name="cut", output_dir=tempdir)
            dest, url = self.storage.upload(utils.zip_files(paths, tempdir, prefix="cut"), subdir="/cuts")
        self.update_key(redis_hash, {"status": self.final_status, "output_url": url, "output_file_name": dest})
        return self.final_status


class Labelling(ImageFileConsumer):
    """Runs the functions that the job names around the model, and one of its own."""

    def _get_processing_function(self, process_type: str, function_name: str) -> Any:
        if function_name == "background":
            return lambda image: image - image.min()
        return super()._get_processing_function(process_type, function_name)

    def _consume(self, redis_hash: str) -> str:
        self._redis_hash = redis_hash
        hvals = self.redis.hgetall(redis_hash)
        self._redis_values = hvals
        with utils.get_tempdir() as tempdir:
            fname = self.storage.download(hvals.get("input_file_name"), tempdir)
            image: Any = utils.get_image(fname)
            self.update_key(redis_hash, {"status": "pre-processing"})
            image = self.preprocess(image, hvals.get("preprocess_function", "").split(","))
            self.update_key(redis_hash, {"status": "predicting"})
            image = self.grpc_image(image, hvals.get("model_name"), hvals.get("model_version"))
            self.update_key(redis_hash, {"status": "post-processing"})
            classes = np.concatenate([1 - image / 2, image / 2, 1 - image / 2], axis=-1)
            labels = self.postprocess(classes, hvals.get("postprocess_function", "").split(","), True)
            assert labels.ndim == 3, labels.shape
            name = os.path.splitext(hvals["original_name"])[0]
            outpaths = utils.save_numpy_array(labels, name, "", tempdir)
            dest, output_url = self.storage.upload(utils.zip_files(outpaths, tempdir))
        done = {"status": self.final_status, "output_url": output_url, "output_file_name": dest}
        self.update_key(redis_hash, done)
        return self.final_status


class Unpacking(Consumer):
    """Asks no model: normalizes every image of an archive, and moves files with their folders."""

    def is_valid_hash(self, redis_hash: str | None) -> bool:
        if redis_hash is None:
            return True
        return str(self.redis.hget(redis_hash, "input_file_name")).lower().endswith(".zip")

    def _consume(self, redis_hash: str) -> str:
        hvals = self.redis.hgetall(redis_hash)
        results = []
        with utils.get_tempdir() as tempdir:
            fname = self.storage.download(hvals.get("input_file_name"), tempdir)
            for path in utils.iter_image_archive(fname, os.path.join(tempdir, "in")):
                image = processing.normalize(utils.get_image(path))
                assert image.ndim == 3, image.shape
                subdir = os.path.dirname(os.path.relpath(path, os.path.join(tempdir, "in")))
                name = os.path.splitext(os.path.basename(path))[0]
                results.extend(utils.save_numpy_array(image, name, subdir, os.path.join(tempdir, "out")))
                self.update_key(redis_hash, {"progress": len(results)})
            zip_file = utils.zip_files(results, os.path.join(tempdir, "out"))
            dest, output_url = self.storage.upload(zip_file)
        self.update_key(
            redis_hash,
            {"status": self.final_status, "output_url": output_url, "output_file_name": dest, "failures": ""},
        )
        return self.final_status
