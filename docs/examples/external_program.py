"""Runs an external program on each file, with a time limit, cancellation and readable errors."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from redis_consumer import utils
from redis_consumer.consumers import Consumer, ConsumerOptions, per_job
from redis_consumer.errors import InvalidImage
from redis_consumer.job import Job

LAST_BYTES = 4096


class ExternalProgram(Consumer):
    """Runs a program that reads one file and writes another, and packs what it writes."""

    class Options(ConsumerOptions):
        """The program and its time limit are the operator's; a job chooses a number."""

        program: str = Field(default="cellfinder", description="Program to run")
        program_timeout_s: float = Field(default=600, gt=0, description="Seconds that the program may take")
        sensitivity: Annotated[int, per_job] = Field(default=5, ge=0, le=9, description="How much is found")

    def _consume(self, redis_hash: str) -> str:
        job = Job(redis_hash, self.redis.hgetall(redis_hash))
        self.update_key(redis_hash, {"status": "started"})
        with utils.get_tempdir() as folder:
            image = self.storage.download(job.input_file_name, folder)
            result = Path(folder, "result.csv")
            self.run_program([self.options.program, f"-s{self.options.sensitivity}", image, str(result)], job)
            key, url = self.storage.upload(utils.zip_files([str(result)], folder))
        self.update_key(redis_hash, {"status": self.final_status, "output_file_name": key, "output_url": url})
        return self.final_status

    def run_program(self, command: list[str], job: Job) -> None:
        """Run a program to its end. It and its child processes are always killed when this method ends."""
        errors = Path(command[-1]).with_name("errors.txt")
        deadline = time.monotonic() + self.options.program_timeout_s
        with errors.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - a list, so no shell reads what a job says
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True
            )
        try:
            while process.poll() is None:
                self.check_wanted()  # raises JobCancelled; asks Redis at most once per second
                if time.monotonic() > deadline:
                    raise InvalidImage(
                        f"{job.original_name}: the program took more than {self.options.program_timeout_s:g} s; "
                        "submit a smaller image"
                    )
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode != 0:
            raise InvalidImage(f"{job.original_name}: {last_line(errors) or f'exit code {process.returncode}'}")


def last_line(path: Path) -> str:
    """Give the last line that a program wrote to its standard error, without paths of the machine."""
    text = path.read_bytes()[-LAST_BYTES:].decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return utils.without_paths(lines[-1]) if lines else ""
