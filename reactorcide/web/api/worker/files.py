"""Routes for workers on other machines: the files of attempts, which are streamed."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any, BinaryIO, cast

from flask import Response, jsonify, request

from reactorcide.domain.artifacts import MAX_LISTING_BYTES
from reactorcide.domain.caches import ExpectedCache, key_digest
from reactorcide.domain.errors import Busy, InvalidInput, JobFailed, NotFound, TooLarge
from reactorcide.domain.git_access import GitAccess
from reactorcide.domain.jobs import artifacts_prefix, service_log_key
from reactorcide.domain.runs import RunFiles
from reactorcide.domain.workers import LeasedAttempt
from reactorcide.jobs import caches, git_access, needs, read, reports, sources
from reactorcide.lib.sizes import format_size
from reactorcide.lib.tar import END, Entry, path_problem, write_entry
from reactorcide.web.api.media import ARTIFACT, CACHE, LISTING, REPORT, TAR
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.api.worker.bodies import read_listing, read_report
from reactorcide.web.api.worker.routes import OF_ATTEMPT, attempt_of, name_instance
from reactorcide.web.api.worker.schemas import (
    ArtifactCopyRequest,
    ArtifactOfAttemptPath,
    ArtifactStoredResponse,
    AttemptPath,
    CacheLookup,
    CacheLookupResponse,
    CacheOfAttemptPath,
    CacheQuery,
    CacheStoredResponse,
    ExpectCachesResponse,
    ExpectedCachesBody,
    ExpectedCachesResponse,
    InputsResponse,
    KnownHostsRequest,
    LeaseHeader,
    ServiceOfAttemptPath,
)
from reactorcide.web.auth import worker
from reactorcide.web.services import services

_CHUNK_BYTES = 1 << 18
_MAX_REPORT_BYTES = 8 << 20
_MAX_SERVICE_LOG_BYTES = 8 << 20
_MAX_TEXT_BYTES = 2 * MAX_LISTING_BYTES

api = resource("worker_files", __name__, tag="worker")
api.after_request(name_instance)


def _body(media: dict[str, Any], kind: str = "application/octet-stream") -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: media}}}


# --- what a job gets ---------------------------------------------------------------------------------


@api.get(
    f"{OF_ATTEMPT}/source",
    responses={200: {"content": {"application/octet-stream": TAR}}, 409: ErrorResponse},
)
def get_attempt_source(header: LeaseHeader, path: AttemptPath, query: NoQuery) -> Response:
    """Return the uploaded source of an attempt's job, or another job's artifacts as its source."""
    leased = attempt_of(header, path)
    entries = sources.entries(services().jobs, leased.job.definition)
    if entries is None:
        raise NotFound("this job has no uploaded source")
    return _tar_of(entries)


@api.get(f"{OF_ATTEMPT}/inputs", responses={200: InputsResponse, 409: ErrorResponse})
def get_attempt_inputs(header: LeaseHeader, path: AttemptPath, query: NoQuery) -> Response:
    """Return what a job of a run gets beside its definition, with the credentials of its project."""
    job = attempt_of(header, path).job
    if job.run_id is None:
        raise NotFound("this job is of no run")
    context = services().jobs
    return jsonify(
        {
            "trusted": context.store.runs.get(job.run_id).is_trusted,
            "git_access": _git_json(git_access.of_job(context, job)),
            "caches": [asdict(item) for item in caches.of_job(context, job)],
            "run_files": _run_files_json(lambda: needs.run_files(context, job)),
        }
    )


@api.get(
    f"{OF_ATTEMPT}/needs", responses={200: {"content": {"application/octet-stream": TAR}}, 409: ErrorResponse}
)
def get_attempt_needs(header: LeaseHeader, path: AttemptPath, query: NoQuery) -> Response:
    """Return the artifacts that a job of a run gets from the jobs before it."""
    files = needs.run_files(services().jobs, attempt_of(header, path).job)
    if files is None or files.artifacts is None:
        raise NotFound("this job gets no artifacts")
    return _tar_of(files.artifacts)


@api.post(f"{OF_ATTEMPT}/known-hosts", responses={204: None, 409: ErrorResponse})
def learn_known_hosts(
    header: LeaseHeader, path: AttemptPath, body: KnownHostsRequest, query: NoQuery
) -> tuple[str, int]:
    """Store the keys of a git server that was seen for the first time."""
    access = git_access.of_job(services().jobs, attempt_of(header, path).job)
    if access is None or access.deploy_key is None:
        raise NotFound("the project of this job has no deploy key")
    access.deploy_key.learned(body.lines)
    return "", 204


# --- what a job leaves -------------------------------------------------------------------------------


@api.put(
    f"{OF_ATTEMPT}/artifacts/<path:path>",
    responses={200: ArtifactStoredResponse, 409: ErrorResponse},
    openapi_extensions=_body(ARTIFACT),
)
def put_attempt_artifact(header: LeaseHeader, path: ArtifactOfAttemptPath, query: NoQuery) -> Response:
    """Store an artifact of an attempt; it is visible once it is listed."""
    leased = attempt_of(header, path)
    max_bytes = int(services().remote.limits["max_artifact_bytes"])
    with _slot():
        size = _store(leased, path.path, _bounded(max_bytes, "together they are", "--max-artifact-bytes"))
    return jsonify({"size": size})


@api.post(f"{OF_ATTEMPT}/artifact-copies", responses={204: None, 409: ErrorResponse})
def copy_attempt_artifact(
    header: LeaseHeader, path: AttemptPath, body: ArtifactCopyRequest, query: NoQuery
) -> tuple[str, int]:
    """Store a copy of a stored artifact under another name."""
    leased = attempt_of(header, path)
    key = _artifact_key(leased, body.path)
    with _slot():
        _store(leased, body.new_path, services().jobs.objects.read(key))
    return "", 204


@api.delete(f"{OF_ATTEMPT}/artifacts", responses={204: None, 409: ErrorResponse})
def drop_attempt_artifacts(header: LeaseHeader, path: AttemptPath, query: NoQuery) -> tuple[str, int]:
    """Remove the stored artifacts of an attempt, before they are listed."""
    services().remote.attempts.artifacts.drop(attempt_of(header, path))
    return "", 204


@api.put(
    f"{OF_ATTEMPT}/listing",
    responses={204: None, 409: ErrorResponse},
    openapi_extensions=_body(LISTING),
)
def list_attempt_artifacts(header: LeaseHeader, path: AttemptPath, query: NoQuery) -> tuple[str, int]:
    """Store the listing of the artifacts of an attempt."""
    leased = attempt_of(header, path)
    data = _whole(_MAX_TEXT_BYTES, "the listing is")
    max_artifacts = int(services().remote.limits["max_artifacts"])
    listing, is_truncated = read_listing(data, max_artifacts=max_artifacts)
    services().remote.attempts.artifacts.check(leased, listing)
    read.save_artifact_listing(services().jobs, leased.job, listing, truncated=is_truncated)
    return "", 204


@api.put(f"{OF_ATTEMPT}/report", responses={204: None, 409: ErrorResponse}, openapi_extensions=_body(REPORT))
def put_attempt_report(header: LeaseHeader, path: AttemptPath, query: NoQuery) -> tuple[str, int]:
    """Store the test results and the summary of an attempt."""
    leased = attempt_of(header, path)
    report = read_report(_whole(_MAX_REPORT_BYTES, "the report is"))
    reports.save(services().jobs, leased.job, report)
    return "", 204


@api.put(
    f"{OF_ATTEMPT}/services/<service>/log",
    responses={204: None, 409: ErrorResponse},
    openapi_extensions=_body(ARTIFACT),
)
def put_attempt_service_log(
    header: LeaseHeader, path: ServiceOfAttemptPath, query: NoQuery
) -> tuple[str, int]:
    """Store the log of a service of an attempt's job."""
    leased = attempt_of(header, path)
    if path.service not in (leased.job.definition.services or {}):
        raise NotFound(f"the job has no service {path.service}")
    data = _whole(_MAX_SERVICE_LOG_BYTES, "the log of a service is")
    services().jobs.objects.put(service_log_key(*leased.key, path.service), [data])
    return "", 204


# --- caches ------------------------------------------------------------------------------------------


@api.post(f"{OF_ATTEMPT}/cache-lookups", responses={200: CacheLookupResponse, 409: ErrorResponse})
def find_attempt_cache(header: LeaseHeader, path: AttemptPath, body: CacheLookup, query: NoQuery) -> Response:
    """Look up the cache to restore for one that a job names."""
    job = attempt_of(header, path).job
    specs = caches.of_job(services().jobs, job)
    if body.number >= len(specs):
        raise InvalidInput("number: the job names fewer caches", "number")
    with _slot():
        answer = caches.find(services().jobs, job, specs[body.number], body.key, lambda: None)
    cache = answer.cache
    found = (
        None if cache is None else {"cache_id": cache.cache_id, "key": cache.key, "size": cache.size_bytes}
    )
    return jsonify({"cache": found, "damaged": list(answer.damaged)})


@api.get(
    f"{OF_ATTEMPT}/caches/<cache_id>",
    responses={200: {"content": {"application/octet-stream": TAR}}, 409: ErrorResponse},
)
def get_attempt_cache(header: LeaseHeader, path: CacheOfAttemptPath, query: NoQuery) -> Response:
    """Return the tar of a cache that the job's run may read."""
    job = attempt_of(header, path).job
    chunks = caches.readable(services().jobs, job, path.cache_id)
    return Response(chunks, mimetype="application/octet-stream")


@api.delete(f"{OF_ATTEMPT}/caches/<cache_id>", responses={204: None, 409: ErrorResponse})
def drop_attempt_cache(header: LeaseHeader, path: CacheOfAttemptPath, query: NoQuery) -> tuple[str, int]:
    """Remove a cache that could not be restored."""
    job = attempt_of(header, path).job
    if caches.is_readable(services().jobs, job, path.cache_id):
        caches.drop(services().jobs, path.cache_id)
    return "", 204


@api.put(f"{OF_ATTEMPT}/expected-caches", responses={200: ExpectCachesResponse, 409: ErrorResponse})
def expect_attempt_caches(
    header: LeaseHeader, path: AttemptPath, body: ExpectedCachesBody, query: NoQuery
) -> Response:
    """Record which caches an attempt saves if its command succeeds."""
    job = attempt_of(header, path).job
    expected = [ExpectedCache(item.key, tuple(item.paths)) for item in body.caches]
    return jsonify({"may_save": caches.expect(services().jobs, job, expected)})


@api.get(f"{OF_ATTEMPT}/expected-caches", responses={200: ExpectedCachesResponse, 409: ErrorResponse})
def expected_attempt_caches(header: LeaseHeader, path: AttemptPath, query: NoQuery) -> Response:
    """List the caches that an attempt saves and that are not stored yet."""
    expected = caches.expected(services().jobs, attempt_of(header, path).job)
    return jsonify({"caches": [{"key": item.key, "paths": list(item.paths)} for item in expected]})


@api.put(
    f"{OF_ATTEMPT}/caches",
    responses={200: CacheStoredResponse, 409: ErrorResponse},
    openapi_extensions=_body(CACHE),
)
def put_attempt_cache(header: LeaseHeader, path: AttemptPath, query: CacheQuery) -> Response:
    """Store a cache that the attempt was to save."""
    job = attempt_of(header, path).job
    found = [
        item for item in caches.expected(services().jobs, job) if key_digest(item.key) == query.key_sha256
    ]
    if not found:
        raise NotFound("the attempt is to save no cache with this key, or it is stored already")
    max_bytes = int(services().remote.limits["max_cache_bytes"])
    with _slot():
        chunks = _bounded(max_bytes, "it is", "--max-cache-bytes")
        size = caches.add(services().jobs, job, found[0], chunks, max_bytes=max_bytes)
    return jsonify({"size": size})


# --- bodies ------------------------------------------------------------------------------------------


def _slot() -> Any:
    # Slow transfers must not take every thread; one worker gets a part of those of all workers.
    return services().slots.required(("workers", worker().worker_id))


def _artifact_key(leased: LeasedAttempt, path: str) -> str:
    problem = path_problem(path)
    if problem is not None:
        raise InvalidInput(f"the artifact is refused: {problem}", "path")
    return artifacts_prefix(*leased.key) + path


def _store(leased: LeasedAttempt, path: str, chunks: Iterator[bytes]) -> int:
    """Store an artifact of an attempt within the limits, and return its size."""
    artifacts = services().remote.attempts.artifacts
    key = artifacts.begin(leased, path)
    return services().jobs.objects.put(key, _counted(chunks, partial(artifacts.count, leased)))


def _bounded(max_bytes: int, what: str, option: str | None = None) -> Iterator[bytes]:
    """Yield the body of the request; raises ``TooLarge``, which names the setting ``option``."""
    setting = "" if option is None else f" ({option})"
    # It has a limit of its own, checked while it is read.
    request.max_content_length = None
    stream = cast(BinaryIO, request.stream)
    size_bytes = 0
    while chunk := _next_chunk(stream):
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise TooLarge(f"{what} larger than {format_size(max_bytes)}{setting}")
        yield chunk


def _next_chunk(stream: BinaryIO) -> bytes:
    try:
        return stream.read(_CHUNK_BYTES)
    except InvalidInput as exc:
        # It is not what was sent that is wrong: the worker sends it again.
        raise Busy(f"{exc}; send it again") from exc


def _counted(chunks: Iterator[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        count(len(chunk))
        yield chunk


def _whole(max_bytes: int, what: str) -> bytes:
    with _slot():
        return b"".join(_bounded(max_bytes, what))


def _tar_of(entries: Iterator[Entry]) -> Response:
    """Return entries as a tar. Raises what the first of them raises; later errors break the answer off."""
    first = next(entries, None)

    def chunks() -> Iterator[bytes]:
        if first is not None:
            yield from write_entry(first, first.path)
            for entry in entries:
                yield from write_entry(entry, entry.path)
        yield END

    return Response(chunks(), mimetype="application/octet-stream")


def _git_json(access: GitAccess | None) -> dict[str, object] | None:
    if access is None:
        return None
    key = access.deploy_key
    return {
        "git_url": access.git_url,
        "username": access.username,
        "token": access.token,
        "deploy_key": None if key is None else key.private,
        "known_hosts": None if key is None else key.known_hosts,
    }


def _run_files_json(load: Callable[[], RunFiles | None]) -> dict[str, object]:
    problem: str | None = None
    files: RunFiles | None = None
    try:
        files = load()
    except JobFailed as exc:
        problem = str(exc)
    return {
        "problem": problem,
        "variables": {} if files is None else dict(files.variables),
        "has_artifacts": files is not None and files.artifacts is not None,
        "ci_sha": None if files is None else files.ci_sha,
        "user": None if files is None else files.user,
    }
