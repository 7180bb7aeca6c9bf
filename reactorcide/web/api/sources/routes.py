"""Routes on uploaded sources."""

from collections.abc import Iterator
from typing import BinaryIO, cast

from flask import Response, jsonify, request

from reactorcide.domain.sources import Source
from reactorcide.jobs import sources
from reactorcide.web import errors
from reactorcide.web.address import location
from reactorcide.web.api.media import SOURCE
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import NoQuery
from reactorcide.web.api.sources.schemas import SourcePath, SourceResponse
from reactorcide.web.auth import caller
from reactorcide.web.services import services

_TYPES = ("application/gzip", "application/x-gzip", "application/octet-stream")
_CHUNK_BYTES = 1 << 18

api = resource("sources", __name__, tag="sources")


@api.post(
    "/sources",
    responses={201: SourceResponse, 200: SourceResponse},
    openapi_extensions={
        "requestBody": {
            "description": "Also accepted as `application/gzip`.",
            "required": True,
            # The type that every client generator knows.
            "content": {"application/octet-stream": SOURCE},
        }
    },
)
def upload_source(query: NoQuery) -> Response:
    """Upload a tar.gz as a source for jobs; 200 if the caller has uploaded the same before."""
    if request.mimetype not in _TYPES:
        message = f"send the source as a tar.gz, with Content-Type: {_TYPES[0]}"
        return errors.answer(415, message)
    # Slow uploads must not take every thread of the service.
    with services().slots.required(caller().share):
        # An upload has a limit of its own, checked while it is read.
        request.max_content_length = None
        source, created = sources.add(
            services().jobs, caller(), _chunks(), max_bytes=services().max_source_bytes
        )
    response = jsonify(_json(source))
    response.status_code = 201 if created else 200
    response.headers["Location"] = location(f"/sources/{source.source_id}")
    return response


@api.get("/sources/<source_id>", responses={200: SourceResponse})
def show_source(path: SourcePath, query: NoQuery) -> Response:
    """Show a source that the caller has uploaded, so that it need not be uploaded again."""
    return jsonify(_json(sources.get(services().jobs, caller(), path.source_id)))


def _json(source: Source) -> dict[str, object]:
    return {"source_id": source.source_id, "size": source.size_bytes, "files": source.files}


def _chunks() -> Iterator[bytes]:
    stream = cast(BinaryIO, request.stream)
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk
