"""A Redis in which each kind of key is used, and every change of state that can be asked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from redis_consumer.client.watch import read_hash
from redis_consumer.job import Job
from redis_consumer.queue import JobQueue, admin, upkeep
from redis_consumer.queue.child_jobs import ChildJobs, child_key
from support.queues import claimed, give_up, submit


@dataclass
class Scene:
    """Two queues with jobs in each state.

    Attributes:
        zips: queue of the parents.
        images: queue of their children.
        parent: waits for two children, and for `running`'s.
        staging: runs, and has staged two children.
        running: a child that runs; its lease is over.
        waiting: a child that waits.
        dead: a dead letter of `images`.
    """

    db: Any
    zips: JobQueue
    images: JobQueue
    parent: Job
    staging: Job
    staged: ChildJobs
    running: Job
    waiting: str
    dead: str

    @classmethod
    def build(cls, db: Any, client: Any) -> Scene:
        zips, images = JobQueue(client, "zips", "pod-1"), JobQueue(client, "images", "pod-2")
        for queue in (zips, images):
            upkeep.register(queue)
        dead = give_up(db, images, "dead")
        submit(db, "parent", "zips")
        parent = claimed(zips)
        child_jobs = ChildJobs(zips, parent)
        child_jobs.write_children(children(parent, 2))
        child_jobs.fan_out("gather", {})
        running = claimed(images)
        images.give_back(running)
        running, waiting = claimed(images), db.lindex("images", -1)
        submit(db, "staging", "zips")
        staging = claimed(zips)
        staged = ChildJobs(zips, staging)
        staged.write_children(children(staging, 2))
        zips.note_recovery()
        upkeep.sweep(images, every_s=0.001)
        db.zadd(images.key("leases"), {running.id: 1})
        return cls(db, zips, images, parent, staging, staged, running, waiting, dead)

    def stage_more(self) -> None:
        """Stage the children of `staging` again, and another one."""
        child_jobs = ChildJobs(self.zips, self.staging)
        child_jobs.write_children(children(self.staging, 2))
        child_jobs.write_children([("images:more.tif:1", {"status": "new"})])


def children(parent: Job, count: int, **fields: str) -> list[tuple[str, dict[str, str]]]:
    """Keys and fields of children that can be staged."""
    return [
        (child_key(parent, "images", f"{index}.tif", index), {"status": "new", "input_file_name": "x", **fields})
        for index in range(count)
    ]


#: What may be asked, and which job it is about.
CHANGES: dict[str, tuple[Callable[[Scene], Any], Callable[[Scene], str]]] = {
    "claim": (lambda scene: scene.images.claim(), lambda scene: scene.waiting),
    "complete": (
        lambda scene: scene.images.complete(scene.running, {"status": "done"}, is_success=True),
        lambda scene: scene.running.id,
    ),
    "fail": (
        lambda scene: scene.images.complete(scene.running, {"status": "failed"}, is_dead=True),
        lambda scene: scene.running.id,
    ),
    "settle the parent": (
        lambda scene: scene.zips.complete(scene.staging, {"status": "failed"}),
        lambda scene: scene.staging.id,
    ),
    "update": (
        lambda scene: scene.images.update(scene.running, {"progress": 50}),
        lambda scene: scene.running.id,
    ),
    "give back": (
        lambda scene: scene.images.give_back(scene.running, error="an outage"),
        lambda scene: scene.running.id,
    ),
    "cancel": (lambda scene: admin.cancel(scene.images, scene.waiting), lambda scene: scene.waiting),
    "cancel the parent": (lambda scene: admin.cancel(scene.zips, scene.parent.id), lambda scene: scene.parent.id),
    "read children": (
        lambda scene: list(ChildJobs(scene.zips, scene.parent).children()),
        lambda scene: scene.parent.id,
    ),
    "write children": (
        lambda scene: scene.stage_more(),
        lambda scene: scene.staging.id,
    ),
    "fan out": (lambda scene: scene.staged.fan_out("gather", {}), lambda scene: scene.staging.id),
    "sweep": (lambda scene: upkeep.sweep(scene.images, every_s=0.001), lambda scene: scene.running.id),
    "sweep of parents": (lambda scene: upkeep.sweep(scene.zips, every_s=0.001), lambda scene: scene.parent.id),
    "renew": (lambda scene: scene.images.renew([scene.running]), lambda scene: scene.running.id),
    "register": (lambda scene: upkeep.register(scene.images), lambda scene: scene.running.id),
    "retry": (lambda scene: admin.retry(scene.images, scene.dead), lambda scene: scene.dead),
    "forget": (
        lambda scene: admin.forget(scene.images, scene.dead, ""),
        lambda scene: scene.waiting,
    ),
    "read": (lambda scene: read_hash(scene.images.redis, scene.running.id), lambda scene: scene.running.id),
    "orphaned results": (lambda scene: upkeep.orphaned_results(scene.images), lambda scene: scene.running.id),
}


def contents(db: Any) -> dict[str, Any]:
    """All that Redis holds, but for the locks of sweeps, which last a moment."""
    read = {
        "string": db.get,
        "hash": db.hgetall,
        "set": db.smembers,
        "list": lambda key: db.lrange(key, 0, -1),
        "zset": lambda key: db.zrange(key, 0, -1, withscores=True),
    }
    keys = [key for key in db.keys("*") if not key.startswith("redis-consumer:sweep:")]
    return {key: read[db.type(key)](key) for key in sorted(keys)}


def places(held: dict[str, Any], job_id: str) -> Iterator[str]:
    """Where a job is: a list, a set of waiting parents, or its end."""
    for key, value in held.items():
        is_place = key.startswith(("redis-consumer:waiting:", "redis-consumer:dead:", "processing-")) or ":" not in key
        if (
            is_place
            and isinstance(value, list)
            and job_id in [each[0] if isinstance(each, tuple) else each for each in value]
        ):
            yield key
    fields = held.get(job_id)
    if isinstance(fields, dict) and fields.get("status") in ("done", "failed"):
        yield "its end"
