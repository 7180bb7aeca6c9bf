"""Routes on artifacts."""

import mimetypes
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, cast
from urllib.parse import quote

from flask import Response, jsonify, request

from reactorcide.domain.artifacts import Artifact
from reactorcide.domain.errors import NotFound
from reactorcide.domain.jobs import Job
from reactorcide.domain.reports import SUMMARY_PATH
from reactorcide.jobs import StoredJobs, access, read, reports
from reactorcide.lib.tar import END, write_entry
from reactorcide.web.api.artifacts.schemas import (
    ArtifactHeader,
    ArtifactListResponse,
    ArtifactPath,
    TestsResponse,
)
from reactorcide.web.api.jobs.schemas import JobPath
from reactorcide.web.api.media import FILE, SUMMARY, TAR_GZ
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import NoQuery
from reactorcide.web.auth import caller
from reactorcide.web.services import services

_TAR_TYPES = ("application/gzip", "application/octet-stream")
# A browser must not run what a job wrote as a page of this service.
_NO_PAGE = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox"}

api = resource("artifacts", __name__, tag="jobs")


@api.get("/jobs/<job_id>/artifacts", responses={200: ArtifactListResponse})
def list_artifacts(path: JobPath, query: NoQuery) -> Response:
    """List the artifacts of a job."""
    job = access.get(services().jobs, caller(), path.job_id)
    listing = read.artifacts(services().jobs, job)
    return jsonify(
        {
            "artifacts": [_artifact_json(item) for item in listing.artifacts],
            "artifacts_truncated": listing.truncated,
        }
    )


@api.get(
    "/jobs/<job_id>/artifacts/<path:path>",
    # The type is guessed from the file's name.
    responses={200: {"content": {"application/octet-stream": FILE, "*/*": FILE}}, 304: None},
)
def get_artifact(header: ArtifactHeader, path: ArtifactPath, query: NoQuery) -> Response:
    """Download one artifact."""
    job = access.get(services().jobs, caller(), path.job_id)
    item = read.artifact(services().jobs, job, path.path)
    response = _download(read.artifact_bytes(services().jobs, job, item), item.path.rpartition("/")[2])
    # A worker may have stored the file anew after it had listed it.
    response.content_length = read.artifact_bytes_stored(services().jobs, job, item)
    response.set_etag(item.sha256)
    return cast(Response, response.make_conditional(request))


@api.get("/jobs/<job_id>/artifacts.tar.gz", responses={200: {"content": dict.fromkeys(_TAR_TYPES, TAR_GZ)}})
def get_artifacts(path: JobPath, query: NoQuery) -> Response:
    """Download all artifacts of a job as a tar.gz."""
    accepted = request.accept_mimetypes.best_match(_TAR_TYPES, default=_TAR_TYPES[0])
    job = access.get(services().jobs, caller(), path.job_id)
    # Now, so that a store that is away is an answer, and not a broken one.
    items = read.artifacts(services().jobs, job).artifacts
    return _download(_gzip(_tar(services().jobs, job, items)), f"{job.job_id}-artifacts.tar.gz", accepted)


@api.get("/jobs/<job_id>/tests", responses={200: TestsResponse})
def show_tests(path: JobPath, query: NoQuery) -> Response:
    """Show the test results in the JUnit XML files among the artifacts of a job."""
    job = access.get(services().jobs, caller(), path.job_id)
    report = reports.load(services().jobs, job)
    return jsonify(
        {
            **asdict(report.counts),
            "files": [asdict(file) for file in report.files],
            "failures": [asdict(failure) for failure in report.failures],
            "truncated": report.truncated,
        }
    )


@api.get("/jobs/<job_id>/summary", responses={200: {"content": {"text/markdown": SUMMARY}}})
def show_summary(path: JobPath, query: NoQuery) -> Response:
    """Show the summary of a job: the artifact `summary.md`, at most 1 MiB of it."""
    job = access.get(services().jobs, caller(), path.job_id)
    summary = reports.load(services().jobs, job).summary
    if summary is None:
        raise NotFound(f"the job has no artifact {SUMMARY_PATH}")
    return Response(summary, mimetype="text/markdown", headers=_NO_PAGE)


def _artifact_json(item: Artifact) -> dict[str, Any]:
    return {
        "path": item.path,
        "size": item.size,
        "sha256": item.sha256,
        "executable": item.is_executable,
    }


def _download(chunks: Iterator[bytes], name: str, content_type: str | None = None) -> Response:
    if content_type is None:
        guessed, encoding = mimetypes.guess_type(name)
        content_type = guessed if guessed and encoding is None else "application/octet-stream"
    response = Response(chunks, mimetype=content_type)
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    response.headers.update(_NO_PAGE)
    return response


def _tar(context: StoredJobs, job: Job, items: list[Artifact]) -> Iterator[bytes]:
    """Yield a tar of all artifacts, in pieces."""
    for entry in read.artifact_entries(context, job, items):
        yield from write_entry(entry, entry.path)
    yield END


def _gzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    # Level 1: the network between a service and its team is faster than a thorough compression.
    compressor = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)
    for chunk in chunks:
        if compressed := compressor.compress(chunk):
            yield compressed
    yield compressor.flush()
