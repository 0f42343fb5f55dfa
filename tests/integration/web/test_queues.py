"""Queues, workers and dead letters of API v1, and the forms of the kinds of jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.queue import JobQueue, upkeep
from redis_consumer.web.problems import Problem
from redis_consumer.web.v1.kinds import option_texts
from support.queues import claimed, give_up
from support.web import Api

PLUGIN = '''
from typing import Annotated, Literal
from pydantic import Field
from redis_consumer.consumers import ConsumerOptions, ImageFileConsumer, per_job

class Counter(ImageFileConsumer):
    """Counts spots."""
    class Options(ConsumerOptions):
        min_size: Annotated[int, per_job] = Field(10, ge=1, description="Smallest spot in pixels.")
        mode: Annotated[Literal["fast", "exact"], per_job] = "fast"
        api_token: str = "secret"
'''


def test_queues_say_why_jobs_wait(api: Api) -> None:
    api.submit()
    [predict, archives] = api.ask("GET", "/queues")
    assert (predict["name"], predict["waiting"], predict["cause"], predict["level"]) == (
        "predict", 1, "no_worker", "bad",
    )  # fmt: skip
    assert predict["what_to_do"].startswith("Start one with `redis-consumer run")
    assert (archives["name"], archives["cause"]) == ("predict-zip", "idle")


def test_a_key_of_other_software_does_no_harm(api: Api, redis_db: Any) -> None:
    redis_db.set("predict", "text")
    assert api.ask("GET", "/queues")[0]["cause"] == "foreign"
    job = {"status": "new", "created_at": "2026-01-01T00:00:00+00:00"}
    redis_db.hset("predict:a.tif:1", mapping=job)
    assert api.ask("GET", "/jobs/predict:a.tif:1")["queue"] is None


def test_workers_say_what_they_do(api: Api) -> None:
    job_id = api.submit()["id"]
    queue = JobQueue(api.context.client, "predict", "pod-1")
    upkeep.register(queue)
    job = claimed(queue)
    queue.update(job, {"status": "predicting"})
    slots = [{"job": job_id, "attempt": 1, "for_s": 4.5}]
    told = {"since": "2026-01-01T00:00:00Z", "memory_mb": 512, "waits_for": "", "idle": 1, "slots": slots}
    queue.renew([job], json.dumps(told))
    [worker] = api.ask("GET", "/workers")
    assert worker == {
        "name": "pod-1",
        "slots": [{"job": job_id, "stage": "predicting", "for_s": 4}, {"job": "", "stage": "", "for_s": 0}],
        "waits_for": "",
        "memory_mb": 512,
        "queue": "predict",
        "since": "2026-01-01T00:00:00Z",
    }


def test_a_worker_of_an_older_version_is_listed(api: Api) -> None:
    upkeep.register(JobQueue(api.context.client, "predict", "pod-0"))
    assert api.ask("GET", "/workers")[0]["name"] == "pod-0"


def test_dead_letters_are_retried_and_dropped(api: Api, redis_db: Any) -> None:
    queue = JobQueue(api.context.client, "predict", "pod-1")
    first, second = give_up(redis_db, queue, "a"), give_up(redis_db, queue, "b")
    dead = api.ask("GET", "/dead")
    assert {job["id"] for job in dead} == {first, second}
    assert (dead[0]["problem"]["title"], bool(dead[0]["dead_since"])) == ("ValueError", True)
    assert api.ask("POST", f"/dead/{first}/again")["status"] == "new"
    api.ask("DELETE", f"/dead/{second}", 204)
    assert api.ask("GET", "/dead") == []
    assert redis_db.hget(second, "status") == "failed"


def test_kinds_have_forms(api: Api) -> None:
    kinds = {kind["name"]: kind for kind in api.ask("GET", "/kinds")}
    assert {"image", "tracking", "mesmer", "spot"} <= kinds.keys()
    image = kinds["image"]
    assert (image["queue"], image["served"]) == ("predict", False)
    assert image["options_schema"]["properties"]["scale"]["type"] == "number"
    assert "rois" in image["outputs"]
    spot = kinds["spot"]["options_schema"]["properties"]
    assert spot["spot_detector"]["enum"] == ["model", "log"]


def test_models_have_cards(api: Api) -> None:
    api.context.storage.write_bytes("models/Mine/3/card.toml", b'description = "My cells"\npixel_size_um = 0.5\n')
    models = {(model["name"], model["version"]): model for model in api.ask("GET", "/models")}
    assert models["NuclearSegmentation", 1]["packaged"] is True
    assert models["NuclearSegmentation", 1]["licence"]
    mine = models["Mine", 3]
    assert (mine["title"], mine["pixel_size_um"], mine["packaged"]) == ("My cells", 0.5, False)


@pytest.fixture(scope="module")
def authors_form(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "counting.py").write_text(PLUGIN)
    command = [sys.executable, "-m", "redis_consumer.web.v1.forms", "counting:Counter"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    form: dict[str, Any] = json.loads(done.stdout)[-1]
    return form


def test_an_authors_consumer_has_a_form_without_values_of_the_operator(authors_form: dict[str, Any]) -> None:
    properties = authors_form["options_schema"]["properties"]
    assert (authors_form["class"], authors_form["description"]) == ("Counter", "Counts spots.")
    assert properties["min_size"]["description"] == "Smallest spot in pixels."
    assert "api_token" not in json.dumps(authors_form)
    assert option_texts(authors_form["options_schema"], {"min_size": 3, "mode": "exact"}) == {
        "min_size": "3",
        "mode": "exact",
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_size": 0}, "at least 1"),
        ({"min_size": 1.5}, "whole number"),
        ({"min_size": "ten"}, "whole number"),
        ({"mode": "slow"}, "fast or exact"),
        ({"api_token": "x"}, "only the operator"),
    ],
)
def test_wrong_options_of_an_authors_consumer(
    authors_form: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(Problem, match=words):
        option_texts(authors_form["options_schema"], options)


def test_the_user_of_a_request(api: Api) -> None:
    assert (api.ask("GET", "/me")["role"], api.ask("GET", "/me", user="ann")["name"]) == ("operator", "ann")


def test_the_web_process_loads_no_large_library(tmp_path: Path) -> None:
    code = """
import sys
import redis_consumer.web.app
print([name for name in ("numpy", "scipy", "skimage", "grpc", "tifffile", "onnxruntime") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
