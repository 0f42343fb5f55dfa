"""Builds an image and runs it without a container engine and without a registry.

Buildah builds the image on a base that debootstrap made. The image runs in its own mount namespace with a read-only
root file system, as in a cluster with ``readOnlyRootFilesystem``. It shares the network with this machine. Both
need root, on Linux.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BASE = "localhost/base"
SUITE, PACKAGES = "bookworm", "ca-certificates,python3,python3-pip"
PROGRAMS = ("buildah", "debootstrap", "unshare", "chroot")
#: A network with a proxy of its own has its certificate in here.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

#: Arguments: root file system, folder for /bucket, user, working directory, command with its variables in front.
RUN = """
set -e
root=$1 bucket=$2 user=$3 folder=$4; shift 4
mount --bind "$root" "$root"
mount --bind "$bucket" "$root/bucket"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" /usr/bin/env -i -C "$folder" "$@"
"""


class NotHere(Exception):
    """This machine can't build or run an image; the text says what is missing."""


def check_machine() -> None:
    """Raise `NotHere` unless all is there that this file needs."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise NotHere(f"{', '.join(missing)} not found; install them, e.g. apt install buildah debootstrap")
    if os.geteuid() != 0:
        raise NotHere("not root; building and running images needs root, e.g. sudo make image-test")


@dataclass(frozen=True)
class Container:
    """The file system of an image, mounted, and what the image says about itself.

    Attributes:
        root: where the file system is.
        config: the image's own user, variables, working directory, command and health check.
        bucket: folder of this machine that is /bucket in it.
    """

    root: Path
    config: dict[str, Any]
    bucket: Path

    @property
    def command(self) -> list[str]:
        """What the image runs if no command is given."""
        return [*(self.config.get("Entrypoint") or ()), *self.config["Cmd"]]

    def size_bytes(self, below: str = ".") -> int:
        """Bytes of the files in a folder of the image."""
        return int(_run(["du", "--bytes", "--summarize", "--one-file-system", str(self.root / below)]).split()[0])

    def start(self, command: Sequence[str], variables: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command as the image's user; the caller ends it."""
        with log.open("wb") as output:
            return subprocess.Popen(self.words(command, variables), stdout=output, stderr=subprocess.STDOUT)

    def run(self, command: Sequence[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command as the image's user to its end."""
        words = self.words(command, variables)
        return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)

    def words(self, command: Sequence[str], variables: Mapping[str, str]) -> list[str]:
        """The call that runs a command as the image's user, with variables on top of the image's own."""
        given = [*self.config["Env"], *(f"{name}={value}" for name, value in variables.items())]
        place = [str(self.root), str(self.bucket), self.config["User"], self.config["WorkingDir"]]
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", RUN, "run", *place, *given, *command]


class Buildah:
    """Builds and mounts images in a store of its own.

    Args:
        folder: for the store and the base's files; what is there is used again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._options = ["--root", str(folder / "store"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]

    def make_base(self) -> str:
        """Make a small system with Python and pip, unless it is there; give its name."""
        if self._call("images", "--quiet", "--filter", f"reference={BASE}"):
            return BASE
        files = self._folder / "base"
        shutil.rmtree(files, ignore_errors=True)
        _run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(files)])
        _run(["tar", "-C", str(files), "-cf", str(self._folder / "base.tar"), "."])
        (self._folder / "Basefile").write_text("FROM scratch\nADD base.tar /\n", encoding="utf-8")
        self._call("build", "--tag", BASE, "--file", str(self._folder / "Basefile"), str(self._folder))
        (self._folder / "base.tar").unlink()
        shutil.rmtree(files)
        return BASE

    def build(self, folder: Path, tag: str, *, target: str | None = None, **arguments: str) -> None:
        """Build the Dockerfile of a folder; the keywords are its build arguments."""
        words = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        words += [f"--target={target}"] if target else []
        words += [f"--secret=id=certificates,src={CERTIFICATES}"] if CERTIFICATES.exists() else []
        # In Docker's format: OCI's has no health check.
        self._call("build", "--isolation", "chroot", "--format", "docker", "--tag", tag, *words, str(folder))
        # What had this name before has none now; each takes a gigabyte.
        self._call("rmi", "--prune")

    @contextmanager
    def container(self, tag: str, bucket: Path) -> Iterator[Container]:
        """Mount an image, to run commands in it."""
        name = self._call("from", tag)
        try:
            root = Path(self._call("mount", name))
            yield Container(root, self._inspect(tag)["Docker"]["config"], bucket)
        finally:
            self._call("rm", name)

    def _inspect(self, tag: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._call("inspect", "--type", "image", tag))
        return found

    def _call(self, verb: str, *words: str) -> str:
        return _run(["buildah", *self._options, verb, *words])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"[-8000:])
    return done.stdout.strip()
