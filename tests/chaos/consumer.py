"""The consumer that the chaos harness kills: small images, but real processes and real connections."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from chaos.ledger import Ledger
from redis_consumer.consumers import TensorFlowServingConsumer
from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.errors import InvalidJob
from redis_consumer.job import Job, JobStatus

LEDGER_VARIABLE = "CHAOS_LEDGER"
MODEL = ("NuclearSegmentation", 1)
#: The steps of a job; its field ``stages_ms`` says how long each takes.
STAGES = tuple(
    str(status)
    for status in (
        JobStatus.STARTED,
        JobStatus.PRE_PROCESSING,
        JobStatus.PREDICTING,
        JobStatus.POST_PROCESSING,
        JobStatus.SAVING_RESULTS,
    )
)


class Chaos(TensorFlowServingConsumer):
    """Downloads a small array, asks the model server, uploads the answer under a name of this job and attempt.

    The field ``style`` says how the result is written: ``update_key``, as the documentation's example does it, or
    ``return``, by the status that is returned. Each run, stage and end is noted in the ledger.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ledger = Ledger(Path(os.environ[LEDGER_VARIABLE]))

    def run(self, job: Job) -> Outcome:
        """Run a job as every consumer does, with notes before and after."""
        self.ledger.note("start", job=job.id, attempt=job.attempt, worker=self.name, style=job.get("style"))
        outcome = super().run(job)
        self.ledger.note("end", job=job.id, attempt=job.attempt, worker=self.name, outcome=outcome.value)
        return outcome

    def _consume(self, redis_hash: str) -> str:
        job = self.job
        if job is None:
            raise InvalidJob(f"job {redis_hash}: runs without a claim")
        pauses_s = dict(zip(STAGES, (int(text) / 1000 for text in job.get("stages_ms").split(",")), strict=True))
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            self._enter("started", job, pauses_s)
            image = np.load(self.storage.download(job.input_file_name, folder))
            self._enter("pre-processing", job, pauses_s)
            self._enter("predicting", job, pauses_s)
            outputs = self.grpc_image(image, *MODEL)
            self._enter("post-processing", job, pauses_s)
            path = Path(folder) / "result.npy"
            np.save(path, np.asarray(outputs[0]))
            self._enter("saving-results", job, pauses_s)
            name = hashlib.md5(f"{job.id} {job.attempt}".encode(), usedforsecurity=False).hexdigest()
            key, url = self.storage.upload(path, key=f"output/{name}.npy")
        fields = {"output_file_name": key, "output_url": url}
        if job.get("style") == "update_key":
            fields["status"] = self.final_status
        self.update_key(redis_hash, fields)
        return self.final_status

    def _enter(self, stage: str, job: Job, pauses_s: dict[str, float]) -> None:
        self.update_key(job.id, {"status": stage})
        self.ledger.note("stage", job=job.id, attempt=job.attempt, worker=self.name, stage=stage)
        time.sleep(pauses_s[stage])
