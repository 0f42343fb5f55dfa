"""Workers reach Redis as operators run it: by URL, ACL user, TLS, Sentinel, socket and IPv6, and on other servers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from redis_consumer.cli.workers import rights
from redis_consumer.errors import SettingsError
from redis_consumer.redis import RedisClient
from redis_consumer.redis_servers import Access
from support.archives import make_zip
from support.cli import CommandLine
from support.redis_server import RedisServer, free_port, other_server
from support.worker import ROOT, environment, running_worker, wait_for

IMAGE = ROOT / "data" / "nuclei.tif"
KEY = "predict:nuclei.tif:1"
USER, PASSWORD = "jobs", "geheim:@/"
QUEUES = ["predict", "predict-zip"]


def acl() -> list[str]:
    """Options for the user that the documentation describes, and an operator's."""
    return [
        *("--user", "default", "off"),
        *("--user", "operator", "on", ">root", "~*", "&*", "+@all"),
        *("--user", USER, "on", f">{PASSWORD}", *rights.rule(QUEUES).split()),
    ]


OPERATOR = {"username": "operator", "password": "root"}


@contextmanager
def started(*servers: RedisServer) -> Iterator[None]:
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
        yield


@pytest.fixture
def authority(tmp_path: Path) -> dict[str, str]:
    """Files of an authority, a server's certificate and a client's."""
    ca = trustme.CA()
    paths = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "server", "client")}
    ca.cert_pem.write_to_path(paths["ca"])
    ca.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(paths["server"])
    ca.issue_cert("worker").private_key_and_cert_chain_pem.write_to_path(paths["client"])
    return paths


def encrypted(folder: Path, authority: dict[str, str], others: Sequence[str] = (), **how: Any) -> RedisServer:
    """A server that takes TLS with a client certificate only."""
    (folder / "redis").mkdir(exist_ok=True)
    server = RedisServer(folder / "redis", program=other_server("redis-server"), **how)
    files = ("--tls-cert-file", authority["server"], "--tls-key-file", authority["server"])
    server.options = [
        *("--port", "0", "--tls-port", str(server.port), *files, "--tls-ca-cert-file", authority["ca"]),
        *("--tls-replication", "yes", *others),
    ]
    server.connect = {"ssl": True, "ssl_ca_certs": authority["ca"], "ssl_certfile": authority["client"], **OPERATOR}
    return server


def run_image_job(db: Any, folder: Path, **settings: str) -> None:
    """Send a real image to a worker with these settings, and wait for its label image."""
    bucket = folder / "bucket"
    (bucket / "uploads").mkdir(parents=True, exist_ok=True)
    shutil.copy(IMAGE, bucket / "uploads" / "nuclei.tif")
    variables = environment(RedisServer(folder), bucket.as_uri(), **settings)
    for name in ("REDIS_HOST", "REDIS_PORT"):
        del variables[name]
    with running_worker(folder, variables):
        model = {"model_name": "NuclearSegmentation", "model_version": "1", "scale": "0.5"}
        db.hset(KEY, mapping={"status": "new", "input_file_name": "uploads/nuclei.tif", **model})
        db.lpush("predict", KEY)
        wait_for(lambda: db.hget(KEY, "status") in ("done", "failed"), "the job's end", folder)
    assert db.hget(KEY, "status") == "done", db.hget(KEY, "reason")
    assert (bucket / db.hget(KEY, "output_file_name")).stat().st_size > 0
    assert "refuses commands" not in (folder / "worker.log").read_text()


def tls_settings(authority: dict[str, str], port: int) -> dict[str, str]:
    return {
        "REDIS_URL": f"rediss://127.0.0.1:{port}",
        "REDIS_USERNAME": USER,
        "REDIS_PASSWORD": PASSWORD,
        "REDIS_CA": authority["ca"],
        "REDIS_CLIENT_CERT": authority["client"],
    }


def test_a_whole_job_runs_by_tls_and_with_the_documented_rights(authority: dict[str, str], tmp_path: Path) -> None:
    server = encrypted(tmp_path, authority, acl())
    with started(server.start()):
        run_image_job(server.client, tmp_path, **tls_settings(authority, server.port))
        (tmp_path / "cli").mkdir()
        cli = CommandLine.make(tmp_path / "cli", server.port)
        result = replace(cli, settings={**cli.settings, **tls_settings(authority, server.port)}).run("doctor", "--json")
    assert "user jobs may run all that a worker of predict needs" in result.stdout
    assert "by TLS" in result.stdout


def test_a_sentinel_is_asked_by_tls(authority: dict[str, str], tmp_path: Path) -> None:
    server = encrypted(tmp_path, authority, acl())
    (tmp_path / "sentinel").mkdir()
    sentinel = encrypted(tmp_path / "sentinel", authority)
    sentinel.connect = {key: value for key, value in server.connect.items() if key not in OPERATOR}
    with started(server.start()):
        names = ("sentinel auth-user mymaster operator", "sentinel auth-pass mymaster root")
        with started(sentinel.start_sentinel(server.port, *names)):
            # The Sentinel knows no users; those are for the master.
            run_image_job(server.client, tmp_path, **tls_settings(authority, sentinel.port))


@pytest.mark.parametrize("program", ["", "redis-server", "valkey-server"])
def test_a_whole_job_runs_with_the_documented_rights_on_every_server(program: str, tmp_path: Path) -> None:
    found = other_server(program) if program else ""
    server = RedisServer(tmp_path, program=found, options=acl(), connect=OPERATOR)
    with started(server.start()):
        url = f"redis://{USER}:geheim%3A%40%2F@127.0.0.1:{server.port}"
        run_image_job(server.client, tmp_path, REDIS_URL=url)
    assert "geheim" not in (tmp_path / "worker.log").read_text()


def test_a_certificate_of_another_authority_is_refused_in_words(authority: dict[str, str], tmp_path: Path) -> None:
    server = encrypted(tmp_path, authority, acl())
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with started(server.start()):
        for access in (
            Access(is_encrypted=True, ca_path=other, cert_path=Path(authority["client"])),
            Access(is_encrypted=True, ca_path=Path(authority["ca"])),
        ):
            client = RedisClient("127.0.0.1", server.port, 0.01, access=access, deadline_s=5)
            with pytest.raises(SettingsError, match="REDIS_CA"):
                client.ping()


def test_a_right_that_is_missing_is_named(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, options=acl(), connect=OPERATOR)
    with started(server.start()):
        access = Access(USER, PASSWORD)
        client = RedisClient("127.0.0.1", server.port, 0.01, access=access, deadline_s=1)
        assert rights.missing(client, QUEUES) == []
        server.client.execute_command("ACL", "SETUSER", USER, "-blmove", "-hset", "resetkeys", "~redis-consumer:*")
        assert set(rights.missing(client, ["predict"])) == {
            *("blmove", "hset", "key predict", "key predict:probe", "key processing-predict:probe")
        }
        assert server.client.keys("*") == []
        server.client.execute_command("ACL", "SETUSER", USER, "-evalsha")
        variables = environment(server, tmp_path.as_uri(), REDIS_USERNAME=USER, REDIS_PASSWORD=PASSWORD)
        with running_worker(tmp_path, variables) as process:
            assert process.wait(90) == 2
        cli = CommandLine.make(tmp_path, server.port)
        result = cli.run("doctor", REDIS_USERNAME=USER, REDIS_PASSWORD=PASSWORD)
    assert "NOPERM" in (tmp_path / "worker.log").read_text()
    assert "NOPERM: user jobs may not use" in " ".join(result.stdout.split())


def test_a_user_with_the_documented_rights_can_send_archives_and_pick_up_results(tmp_path: Path) -> None:
    """What the scripts of parents and children do is within these rights as well."""
    server = RedisServer(tmp_path, options=acl(), connect=OPERATOR)
    with started(server.start()):
        cli = CommandLine.make(tmp_path, server.port)
        (tmp_path / "plate.zip").write_bytes(make_zip({"a.tif": b"pixels", "b.tif": b"more"}))
        cli.settings.update(REDIS_USERNAME=USER, REDIS_PASSWORD=PASSWORD)
        job_id = cli.run("submit", "plate.zip").stdout.strip()
        result = cli.run("run", "--burst", "--serve", "zip=predict-zip", "--serve", "copying:Copier=predict")
        assert result.returncode == 0, result.stderr
        assert "refuses commands" not in result.stderr
        assert server.client.hget(job_id, "status") == "done", server.client.hget(job_id, "reason")


def test_a_socket_and_a_database_are_reached_by_url(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    server = RedisServer(tmp_path, options=["--unixsocket", str(path)])
    with started(server.start()):
        db = redis.Redis("127.0.0.1", server.port, db=3, decode_responses=True)
        run_image_job(db, tmp_path, REDIS_URL=f"unix://{path}?db=3")
        db.close()
        assert server.client.keys("*") == []


def test_a_database_that_does_not_exist_is_named(redis_server: RedisServer, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}/99"
    for command in (["run", "--burst"], ["doctor"]):
        (tmp_path / command[0]).mkdir()
        result = CommandLine.make(tmp_path / command[0], redis_server.port).run(*command, REDIS_URL=url)
        said = " ".join((result.stdout + result.stderr).split())
        assert result.returncode in (1, 2), said
        assert "let REDIS_URL end with the number of a database that it has" in said
        assert "Traceback" not in said


def test_an_address_of_ipv6_is_reached(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, options=["--bind", "127.0.0.1", "::1"])
    with started(server.start()):
        client = RedisClient("::1", server.port, 0.01, deadline_s=5)
        assert client.ping()
        assert client.describe() == f"Redis at [::1]:{server.port}"
        client.close()


def test_a_cluster_is_refused(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, options=["--cluster-enabled", "yes"])
    # A cluster also listens at the port that is 10,000 higher.
    server.port = next(port for port in iter(free_port, 0) if port + 10_000 < 2**16)
    with started(server.start()):
        with running_worker(tmp_path, environment(server, tmp_path.as_uri())) as process:
            assert process.wait(90) == 2
        result = CommandLine.make(tmp_path, server.port).run("doctor")
    assert "it is a Redis Cluster, which is not supported" in (tmp_path / "worker.log").read_text()
    assert "is not supported" in " ".join(result.stdout.split())
    assert result.returncode != 0


def test_a_sentinel_of_several_masters_asks_for_a_name(tmp_path: Path) -> None:
    servers = []
    for name in ("a", "b", "s"):
        (tmp_path / name).mkdir()
        servers.append(RedisServer(tmp_path / name))
    first, second, sentinel = servers
    with ExitStack() as stack:
        stack.enter_context(started(first.start(), second.start()))
        other = f"sentinel monitor other 127.0.0.1 {second.port} 1"
        stack.enter_context(started(sentinel.start_sentinel(first.port, other)))

        def client_of(name: str) -> RedisClient:
            access = Access(master_name=name)
            return RedisClient("127.0.0.1", sentinel.port, 0.01, access=access, deadline_s=5)

        with pytest.raises(SettingsError, match="several masters: mymaster, other; set REDIS_MASTER_NAME"):
            client_of("").ping()
        for name, server in (("mymaster", first), ("other", second)):
            assert f"master 127.0.0.1:{server.port}" in client_of(name).describe()
        with pytest.raises(SettingsError, match="doesn't know the master 'gone', only mymaster, other"):
            client_of("gone").ping()


def test_doctor_warns_where_an_address_is_given_twice(tmp_path: Path, redis_server: RedisServer) -> None:
    cli = CommandLine.make(tmp_path, redis_server.port)
    result = cli.run("doctor", REDIS_URL=f"redis://127.0.0.1:{redis_server.port}", REDIS_HOST="elsewhere")
    assert "REDIS_URL overrides the others" in " ".join(result.stdout.split())


def test_every_command_of_the_scripts_is_among_the_rights() -> None:
    used = {
        name
        for path in (ROOT / "src" / "redis_consumer" / "queue" / "lua").glob("*.lua")
        for name in re.findall(r"""(?:redis\.p?call|write)\("([A-Z]+)\"""", path.read_text())
    }
    assert used <= {command[0] for command in rights.commands()}


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(SettingsError, match="REDIS_CA = '/nowhere.pem': there is no such file"):
        Access(is_encrypted=True, ca_path=Path("/nowhere.pem"))
