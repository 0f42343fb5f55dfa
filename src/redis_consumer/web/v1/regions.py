"""Cuts a region out of the image of a job: the job gets a copy of it as its input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from redis_consumer.text import file_digest
from redis_consumer.web.context import WebContext
from redis_consumer.web.results.files import call, input_path, work_folder
from redis_consumer.web.v1.shapes import Region


def cut_out(context: WebContext, fields: Mapping[str, str], region: Region) -> dict[str, str]:
    """Upload a copy of a region as OME-TIFF, and return the fields of a job for it.

    No field of a job names a region, and workers of any version take the copy. Its axes are in the file, so the fields
    ``dimension_order`` and ``field_of_view`` are left out.

    Raises:
        Problem: 422: the image can't be read, or the region is outside of it.
    """
    name = fields.get("original_name") or PurePosixPath(fields["input_file_name"]).name
    place = [region.x, region.y, region.width, region.height]
    with work_folder(context) as folder:
        target = folder / "region.ome.tif"
        request = {
            "image": str(input_path(context.storage, fields, folder)),
            "name": name,
            "order": fields.get("dimension_order", ""),
            "field": fields.get("field_of_view", ""),
            "region": place,
            "target": str(target),
        }
        call("cut_region", request, name)
        key = f"uploads/{file_digest(target, 'md5')}.ome.tif"
        url = context.storage.upload_file(target, key)
    stem = PurePosixPath(name).stem
    return {
        "input_file_name": key,
        "url": url,
        "original_name": f"{stem}-region.ome.tif",
        "input_region": ",".join(map(str, place)),
        "dimension_order": "",
        "field_of_view": "",
    }
