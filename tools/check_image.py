"""Checks that the container image builds and does a whole job as in a cluster. Exits 1 if it doesn't.

The image runs as its own user, on a read-only root file system, with a Redis of this machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.container import ROOT, Buildah, Container, NotHere, check_machine

from redis_consumer.cli.authors.new_consumer import write_package
from redis_consumer.cli.embedded import RedisServer, run_redis

NAME = "localhost/kiosk-redis-consumer"
IMAGE = "nuclei.tif"
#: The target without onnxruntime: it needs a model server.
SLIM = "slim"
CONSUMER = "cell-counter"
COMPILERS = ("cc", "gcc", "g++", "clang", "ld", "make", "rustc")
START_S, STOP_S = 60.0, 40.0


class Flaw(Exception):
    """The image has a fault."""


def main(words: Sequence[str] | None = None) -> int:
    """Build and check each target that is asked for."""
    parser = argparse.ArgumentParser(description="Build the container image, and run a job in it.")
    parser.add_argument("--target", action="append", help="of the Dockerfile; repeatable; slim and full by default")
    parser.add_argument("--base", help="base image; by default one that debootstrap makes")
    given = parser.parse_args(words)
    folder = ROOT / "build" / "image"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        check_machine()
        buildah = Buildah(folder)
        base = given.base or buildah.make_base()
        for target in given.target or (SLIM, "full"):
            check_target(buildah, target, base)
    except NotHere as error:
        print(f"image-test: {error}", file=sys.stderr)
        return 2
    except (Flaw, RuntimeError, subprocess.SubprocessError) as error:
        print(f"image-test: {error}", file=sys.stderr)
        return 1
    return 0


def check_target(buildah: Buildah, target: str, base: str) -> None:
    """Build a target and check that it works."""
    started = time.monotonic()
    tag = f"{NAME}:{target}"
    buildah.build(ROOT, tag, target=target, BASE_IMAGE=base)
    report(target, f"built in {time.monotonic() - started:.0f} s on {base}")
    with tempfile.TemporaryDirectory(prefix="redis-consumer-image-") as name, run_redis() as redis:
        bucket = make_bucket(Path(name))
        with buildah.container(tag, bucket) as container:
            report(target, sizes(container))
            check_files(container)
            report(target, "user, files and programs are as they should be")
            variables = settings(redis)
            report(target, check_doctor(container, variables, is_slim=target == SLIM))
            if target != SLIM:
                report(target, run_job(container, variables, Path(name) / "worker.log"))
        if target != SLIM:
            report(target, check_own_consumer(buildah, tag, Path(name), bucket))


def check_own_consumer(buildah: Buildah, tag: str, folder: Path, bucket: Path) -> str:
    """Check that a package of `redis-consumer new-consumer` builds on the image, and is found in it."""
    write_package(CONSUMER, "image", folder)
    own = f"localhost/{CONSUMER}"
    buildah.build(folder / CONSUMER, own, BASE=tag)
    with buildah.container(own, bucket) as container:
        done = container.run(["redis-consumer", "doctor", "--json"], {"STORAGE_BUCKET": "file:///bucket"})
        expect(done.stdout.startswith("["), f"doctor says: {done.stdout}{done.stderr}")
        (found,) = [each for each in json.loads(done.stdout) if each["name"] == "consumer"]
    expect(found["outcome"] == "ok" and CONSUMER in found["text"], f"doctor says: {found['text']}")
    return f"an image on top of it has the {found['text']}"


def report(target: str, text: str) -> None:
    """Say what was seen."""
    print(f"{target}: {text}", flush=True)


def make_bucket(folder: Path) -> Path:
    """Make a bucket, that the image's user may write, with an image in it."""
    folder.chmod(0o755)
    bucket = folder / "bucket"
    (bucket / "uploads").mkdir(parents=True)
    shutil.copy(ROOT / "data" / IMAGE, bucket / "uploads")
    for path in (bucket, bucket / "uploads"):
        path.chmod(0o777)
    return bucket


def settings(redis: RedisServer) -> dict[str, str]:
    """Variables as a deployment gives them: no command, no files."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {
        "REDIS_HOST": redis.host,
        "REDIS_PORT": str(redis.port),
        "REDIS_PASSWORD": redis.password,
        "STORAGE_BUCKET": "file:///bucket",
        "MODEL_SERVER": "onnx://",
        "NUCLEAR_MODEL": "NuclearSegmentation:1",
        "HEALTH_ADDRESS": f"127.0.0.1:{port}",
        "GRACE_PERIOD": "5",
        "LOG_LEVEL": "INFO",
    }


def sizes(container: Container) -> str:
    """Say how large image and environment are."""
    whole, ours = container.size_bytes(), container.size_bytes("opt/venv")
    return f"{whole / 1e6:.0f} MB: the base {(whole - ours) / 1e6:.0f}, ours {ours / 1e6:.0f}"


def check_files(container: Container) -> None:
    """Check that the image runs as an unprivileged user, can write only to its own folders, and has no compiler."""
    user = container.run(["id", "-u"], {}).stdout.strip()
    expect(user.isdigit() and int(user) > 0, f"it runs as user {user!r}")
    for path, may_write in (("/usr/src/app/x", False), ("/opt/venv/x", False), ("/tmp/x", True), ("/bucket/x", True)):
        written = container.run(["touch", path], {}).returncode == 0
        expect(written is may_write, f"{path} can{'' if written else 't'} be written")
    found = container.run(["sh", "-c", f"command -v {' '.join(COMPILERS)}"], {}).stdout.split()
    expect(not found, f"it holds {', '.join(found)}")


def check_doctor(container: Container, variables: Mapping[str, str], *, is_slim: bool) -> str:
    """Check that doctor finds nothing wrong, or only that an image without onnxruntime can't run models itself."""
    done = container.run(["redis-consumer", "doctor", "--write", "--json"], variables)
    expect(done.stdout.startswith("["), f"doctor says: {done.stdout}{done.stderr}")
    wrong = {each["name"]: each["text"] for each in json.loads(done.stdout) if each["outcome"] not in ("ok", "warning")}
    wrong = {name: text for name, text in wrong.items() if not (is_slim and "kiosk-redis-consumer[onnx]" in text)}
    expect(not wrong, f"doctor says: {wrong}")
    return "doctor names the extra that models in the worker need" if is_slim else "doctor is content"


def run_job(container: Container, variables: Mapping[str, str], log: Path) -> str:
    """Start the image's own command, submit an image from within, and stop the worker; say how it went."""
    with running_worker(container, variables, log) as worker:
        health = container.config["Healthcheck"]["Test"][1:]
        wait_for(lambda: container.run([*health, "--ready"], variables).returncode == 0, worker, log)
        started = time.monotonic()
        path = f"/bucket/uploads/{IMAGE}"
        submit = ["redis-consumer", "submit", path, "--scale", "0.5", "--output", "/tmp/results", "--json"]
        done = container.run(submit, variables)
        expect(done.returncode == 0, f"the job failed: {done.stdout}{done.stderr}{log.read_text()}")
        (job,) = json.loads(done.stdout)
        seconds = time.monotonic() - started
        healthy = container.run(health, variables)
        expect(healthy.returncode == 0, f"its health check says: {healthy.stderr}")
        worker.terminate()
        expect(worker.wait(STOP_S) == 0, f"the worker ended with exit code {worker.returncode}: {log.read_text()}")
    return f"the job {job['job']} was {job['status']} after {seconds:.1f} s; the worker stopped at SIGTERM"


@contextmanager
def running_worker(container: Container, variables: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the image without naming a command, as the kiosk's charts do."""
    worker = container.start(container.command, variables, log)
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def wait_for(is_there: Callable[[], bool], worker: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until something holds, for as long as the worker lives."""
    deadline = time.monotonic() + START_S
    while not is_there():
        alive = worker.poll() is None and time.monotonic() < deadline
        expect(alive, f"the worker doesn't get ready; it said: {log.read_text()}")
        time.sleep(0.5)


def expect(holds: bool, flaw: str) -> None:
    """Raise `Flaw` unless something holds."""
    if not holds:
        raise Flaw(flaw)


if __name__ == "__main__":
    sys.exit(main())
