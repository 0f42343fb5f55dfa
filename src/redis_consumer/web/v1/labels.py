"""Corrects the labels of a job: each correction makes a new version, and the earlier ones are kept."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from redis_consumer.errors import ConsumerError
from redis_consumer.queue import timestamp
from redis_consumer.storage.keys import OUTPUT_DIR
from redis_consumer.web.access import User, user_of
from redis_consumer.web.context import WebContext, context_of
from redis_consumer.web.problems import Problem, problems
from redis_consumer.web.results.files import call, input_path, request_of, result_path, work_folder
from redis_consumer.web.v1.jobs import hash_of, no_job, seen_jobs
from redis_consumer.web.v1.shapes import Corrections, JobReply

router = APIRouter()

#: A new version becomes visible only if no one else made one meanwhile.
_PUT = """
if redis.call('HGET', KEYS[1], 'status') ~= 'done' then return 'gone' end
if (redis.call('HGET', KEYS[1], 'labels_version') or '0') ~= ARGV[1] then return 'changed' end
for index = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1]) end
return 'ok'
"""
_MOST_RECORD_BYTES = 16 << 20


@router.patch("/jobs/{job_id:path}/labels", response_model=JobReply, responses=problems(404, 409))
def correct_labels(request: Request, job_id: str, body: Corrections) -> dict[str, Any]:
    """Delete, merge, split or paint objects. ``base`` is the version that was corrected; measurements follow."""
    context, user = context_of(request), user_of(request)
    fields = hash_of(context, user, job_id)
    _check_base(fields, body.base)
    archive = result_path(context, fields)
    with work_folder(context) as folder:
        _make(context, user, job_id, fields, archive, folder, body)
    job = seen_jobs(context, user, [job_id]).get(job_id)
    if job is None:
        raise no_job(job_id)
    return job


def _check_base(fields: Mapping[str, str], base: int) -> None:
    version = fields.get("labels_version") or "0"
    if version != str(base):
        raise Problem(
            409, f"The labels have version {version} by now, not {base}.", field="base",
            hint="Read the labels again, and repeat the corrections on them.",
        )  # fmt: skip


def _make(
    context: WebContext,
    user: User,
    job_id: str,
    fields: Mapping[str, str],
    archive: Path,
    folder: Path,
    body: Corrections,
) -> None:
    version, digest = body.base + 1, hashlib.md5(job_id.encode(errors="surrogateescape"), usedforsecurity=False)
    # The token keeps two corrections of one version apart, of which only one becomes visible.
    zip_name = f"{digest.hexdigest()}-labels-{version}-{secrets.token_hex(4)}.zip"
    ops = [op.model_dump() for op in body.ops]
    record = _record(context, fields)
    earlier = record.get("corrections", [])
    entry = {
        "version": version,
        "of": fields["output_file_name"],
        "at": timestamp(),
        "by": user.name,
        "ops": ops,
    }
    made = call(
        "correct_labels",
        {
            **request_of(fields, archive, input_path(context.storage, fields, folder), folder),
            "ops": ops,
            "entry": entry,
            "earlier": earlier,
            "zip_name": zip_name,
        },
        fields.get("original_name") or "image",
    )
    entry |= {"result": f"{OUTPUT_DIR}/{zip_name}", "sha256": made["digest"]}
    record = {**record, "corrections": [*earlier, entry]}
    _publish(context, job_id, made, record, fields.get("labels_version") or "0")


def _publish(context: WebContext, job_id: str, made: Mapping[str, Any], record: Mapping[str, Any], base: str) -> None:
    """Upload a version, and make it the result of the job if no one else has made one meanwhile."""
    entry = record["corrections"][-1]
    key = entry["result"]
    record_key = key.removesuffix(".zip") + ".provenance.json"
    url = context.storage.upload_file(made["zip"], key)
    context.storage.write_bytes(record_key, json.dumps(record, ensure_ascii=False, indent=1).encode())
    texts = {
        "labels_version": entry["version"],
        "output_file_name": key,
        "output_url": url,
        "provenance_file_name": record_key,
        "objects": made["objects"],
        "updated_at": timestamp(),
    }
    outcome = context.client.eval(_PUT, 1, job_id, base, *(str(text) for pair in texts.items() for text in pair))
    if outcome != "ok":
        for each in (key, record_key):
            context.storage.delete(each)
        raise Problem(409, "The labels were changed meanwhile.", field="base", hint="Read them again.")


def _record(context: WebContext, fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the provenance record of a result; empty if it has none."""
    key = fields.get("provenance_file_name", "")
    try:
        record = json.loads(context.storage.read_bytes(key, max_bytes=_MOST_RECORD_BYTES)) if key else {}
    except (ConsumerError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
