"""Measures the web server: its start, its memory, tiles, watchers and uploads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import web_watchers
from benchmarks.memory import forget_peak, peak_of
from redis_consumer.cli import embedded
from redis_consumer.redis import RedisClient

START_S, TIMEOUT_S = 60.0, 300.0
IDLE_S = 2.0
SIDE_PX, TILE_PX, ROUNDS = 4096, 512, 8
UPLOAD_MB, PIECE_BYTES = 1024, 8 << 20
POLL_S = 0.02


@dataclass(frozen=True)
class Server:
    """A ``redis-consumer serve`` of a process of its own.

    Attributes:
        pid: of the process.
        port: on loopback.
        folder: with the folder of the server and the bucket.
        start_s: seconds from the start of the process to its first reply.
    """

    pid: int
    port: int
    folder: Path
    start_s: float

    @property
    def cpu_s(self) -> float:
        """Processor time that the process has taken, without that of its children."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_bytes(self) -> int:
        """Resident memory of the process, without that of its children."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def disk_bytes(self) -> int:
        """What its folder and the bucket take on the disk."""
        total = 0
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                total += path.stat().st_blocks * 512
        return total


def measure(upload_mb: int = UPLOAD_MB) -> dict[str, Any]:
    """A real server on a Redis and a bucket in a folder. On Linux only.

    Args:
        upload_mb: size of the upload in MiB.

    Returns:
        ``start_s``, from the start of the process to its first reply; ``idle_rss_mb``, resident memory after two idle
        seconds; ``tile_cpu_ms``, processor time for a request of a tile of 512 x 512 px uint16; ``watchers_core_pct``,
        the share of a core for 1,000 watchers of 100 jobs with 100 changes a second, and ``watchers_p95_s``, the time
        in which 95 % of the changes are received; ``upload_rss_mb``, the largest resident memory over idle in an upload
        of `upload_mb` by tus, and ``upload_disk_ratio``, the most that it takes on the disk over its size.
    """
    with tempfile.TemporaryDirectory() as name, embedded.run_redis() as redis:
        with _serve(redis, Path(name)) as server:
            time.sleep(IDLE_S)
            idle = server.memory_bytes
            figures = {"start_s": round(server.start_s, 2), "idle_rss_mb": round(idle / 1e6, 1)}
            figures["tile_cpu_ms"] = round(_tile_cpu_ms(server), 3)
            client = RedisClient(redis.host, redis.port, 1.0, password=redis.password)
            core, p95 = web_watchers.measure(client, server)
            client.close()
        # In a new process, since memory that was once taken is not always returned.
        with _serve(redis, Path(name)) as server:
            rss, ratio = _upload(server, upload_mb << 20)
    return {
        **figures,
        "watchers_core_pct": round(100 * core, 1),
        "watchers_p95_s": round(p95, 3),
        "upload_rss_mb": round(rss / 1e6, 1),
        "upload_disk_ratio": round(ratio, 3),
    }


@contextmanager
def _serve(redis: embedded.RedisServer, folder: Path) -> Iterator[Server]:
    bucket = folder / "bucket"
    bucket.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    variables = {
        **os.environ,
        "REDIS_HOST": redis.host,
        "REDIS_PORT": str(redis.port),
        "REDIS_PASSWORD": redis.password,
        "STORAGE_BUCKET": bucket.as_uri(),
        "WEB_FOLDER": str(folder / "web"),
        "WEB_AUTH": "none",
    }
    command = [sys.executable, "-m", "redis_consumer", "serve", "--port", str(port)]
    begin = time.monotonic()
    with subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL) as process:
        try:
            while not _is_up(port):
                if process.poll() is not None or time.monotonic() - begin > START_S:
                    raise RuntimeError(f"the server did not start within {START_S:g} s; try redis-consumer serve")
                time.sleep(POLL_S)
            yield Server(process.pid, port, folder, time.monotonic() - begin)
        finally:
            process.terminate()


def _is_up(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


@contextmanager
def _http(server: Server) -> Iterator[Any]:
    import httpx

    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}/api/v1", timeout=TIMEOUT_S) as http:
        yield http


def _tile_cpu_ms(server: Server) -> float:
    from tifffile import imwrite

    path = server.folder / "image.tif"
    noise = np.random.default_rng(3).poisson(900, (SIDE_PX, SIDE_PX)).astype(np.uint16)
    imwrite(path, noise, photometric="minisblack")
    with _http(server) as http:
        upload = http.put("/uploads/image.tif", content=path.read_bytes()).raise_for_status().json()["id"]
        deadline = time.monotonic() + TIMEOUT_S
        while not (view := http.get(f"/uploads/{upload}/view").raise_for_status().json())["ready"]:
            if view["problem"] or time.monotonic() > deadline:
                raise RuntimeError(f"the view of an image was not made: {view['problem']}")
            time.sleep(0.2)
        side = range(SIDE_PX // TILE_PX)
        tiles = [f"/uploads/{upload}/view/image/0/0/0/{row}/{column}" for row in side for column in side]
        http.get(tiles[0]).raise_for_status()
        begin = server.cpu_s
        for _ in range(ROUNDS):
            for tile in tiles:
                with http.stream("GET", tile) as reply:
                    reply.raise_for_status()
                    for _piece in reply.iter_raw():
                        pass
        return 1000 * (server.cpu_s - begin) / (ROUNDS * len(tiles))


def _upload(server: Server, size: int) -> tuple[float, float]:
    """Return the memory over idle in bytes, and the share of the disk."""
    time.sleep(IDLE_S)
    idle, before = server.memory_bytes, server.disk_bytes
    forget_peak(server.pid)
    most, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(POLL_S):
            most[0] = max(most[0], server.disk_bytes - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        with _http(server) as http:
            tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
            made = http.post("/uploads", json={"name": "large.tif", "size": size}).raise_for_status().json()
            piece = np.random.default_rng(4).bytes(PIECE_BYTES)
            for offset in range(0, size, PIECE_BYTES):
                headers = {**tus, "Upload-Offset": str(offset)}
                content = piece[: size - offset]
                http.patch(f"/uploads/{made['id']}", content=content, headers=headers).raise_for_status()
    finally:
        is_over.set()
        thread.join()
    most[0] = max(most[0], server.disk_bytes - before)
    return peak_of(server.pid) - idle, most[0] / size
