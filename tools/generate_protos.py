"""Generates the message classes in `serving/_pb` from their .proto files.

Run ``make protos`` after a .proto file has changed, and commit what it writes. The target starts this script in a
throw-away environment::

    uv run --no-project --isolated --python 3.11 --with grpcio-tools==1.62.3 --with "setuptools<81" \
        python tools/generate_protos.py

``--check`` writes nothing and exits 1 where the committed files differ from what would be written.

The compiler is old on purpose. Generated code refuses a protobuf runtime that is older than itself. A runtime that is a
major version newer warns about code of protoc 26 and later, or refuses it. The output of protoc 25 has no such check,
and every runtime that we allow (see pyproject.toml) accepts it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

COMPILER = "libprotoc 25."
SOURCE = Path(__file__).resolve().parents[1] / "src"
PROTOS = SOURCE / "redis_consumer" / "serving" / "_pb"


def protoc(*arguments: str) -> str:
    """Run the compiler of this environment in the source folder and give what it prints."""
    command = [sys.executable, "-m", "grpc_tools.protoc", *arguments]
    return subprocess.run(command, cwd=SOURCE, check=True, stdout=subprocess.PIPE, text=True).stdout


def generate(target: Path) -> None:
    """Write message classes and their type stubs for all .proto files below `target`."""
    protos = sorted(str(path.relative_to(SOURCE)) for path in PROTOS.glob("*.proto"))
    protoc("-I.", f"--python_out={target}", f"--pyi_out={target}", *protos)


def outdated() -> list[str]:
    """Names of generated files that differ from what the compiler makes of the .proto files now."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    return [
        path.name
        for path, content in fresh.items()
        if not (SOURCE / path).is_file() or (SOURCE / path).read_bytes() != content
    ]


def main() -> int:
    """Generate, or with ``--check`` compare; the exit code says whether all is well."""
    parser = argparse.ArgumentParser(description="Generate src/redis_consumer/serving/_pb from its .proto files.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is out of date")
    is_check = parser.parse_args().check
    version = protoc("--version").strip()
    if not version.startswith(COMPILER):
        sys.stderr.write(f"{version}: wanted is {COMPILER}x, see the head of this file; run make protos\n")
        return 1
    if not is_check:
        generate(SOURCE)
        return 0
    names = outdated()
    if names:
        sys.stderr.write(f"out of date: {', '.join(names)}; run make protos\n")
    return 1 if names else 0


if __name__ == "__main__":
    raise SystemExit(main())
