"""Routes for workers on other machines: sessions, attempts, logs.

A worker sees what it was assigned, and nothing else.
"""

import json
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from flask import Response, g, jsonify, request

from reactorcide.domain import assignments
from reactorcide.domain.errors import Forbidden, InvalidInput, StoreError
from reactorcide.domain.workers import INSTANCE_HEADER, SERVICE_LIMITS, LeasedAttempt, WorkerSession
from reactorcide.jobs.remote import registry
from reactorcide.jobs.remote.dispatch import Ask, Next, Waiter
from reactorcide.jobs.remote.logs import LogEnds
from reactorcide.lib.clock import now_ms
from reactorcide.web.api.media import LOG_PIECE
from reactorcide.web.api.resource import NO_TOKEN, resource
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.api.worker.schemas import (
    AssignmentListResponse,
    AttemptPath,
    FinishRequest,
    HandOverRequest,
    LeaseHeader,
    LogEndsResponse,
    LogPieceQuery,
    NextRequest,
    NextResponse,
    RenewResponse,
    SessionPath,
    SessionRequest,
    SessionResponse,
    StartedRequest,
    TryAgainRequest,
    WorkerRegistration,
    WorkerRegistrationResponse,
)
from reactorcide.web.auth import worker
from reactorcide.web.services import services

OF_ATTEMPT = "/worker/attempts/<job_id>/<int:attempt>"

api = resource("worker", __name__, tag="worker")


@api.after_request
def name_instance(response: Response) -> Response:
    """Name the installation, so that a worker does not believe whoever else answers at this address."""
    # Without it an answer to an unknown client is as good, also while the database is away.
    if "worker" in g:
        response.headers[INSTANCE_HEADER] = services().jobs.instance_id
    return response


@api.post(
    "/worker/register",
    responses={200: WorkerRegistrationResponse, 403: ErrorResponse, 429: ErrorResponse},
    security=NO_TOKEN,
)
def register_worker(body: WorkerRegistration, query: NoQuery) -> Response:
    """Register a worker that an admin has added; safe to repeat with the same secret."""
    try:
        worker_id = registry.register(services().jobs, body.token, body.secret)
    except Forbidden:
        services().bad_tokens.failed(request.remote_addr)
        raise
    return jsonify({"worker_id": worker_id})


@api.post("/worker/sessions", responses={200: SessionResponse, 409: ErrorResponse})
def begin_worker_session(body: SessionRequest, query: NoQuery) -> Response:
    """Begin a session of a worker; the one before ends."""
    session = WorkerSession(
        session_id=body.session_id,
        host=body.host,
        version=body.version,
        protocol=body.protocol,
        concurrency=body.concurrency,
        queues=tuple(body.queues),
        lost_after_s=body.lost_after,
    )
    protocol = registry.begin_session(services().jobs, worker(), session)
    remote = services().remote
    return jsonify(
        {
            "session_id": session.session_id,
            "worker_id": worker().worker_id,
            "instance_id": services().jobs.instance_id,
            "protocol": protocol,
            "lease": remote.lease_s,
            **{name: remote.limits[name] for name in SERVICE_LIMITS},
        }
    )


@api.post("/worker/sessions/<session_id>/next", responses={200: NextResponse, 409: ErrorResponse})
def next_jobs(path: SessionPath, body: NextRequest, query: NoQuery) -> Response:
    """Return new attempts for a worker, and cancels; the call is held while there is nothing."""
    dispatcher = services().remote.dispatcher
    ask = Ask(
        session_id=path.session_id,
        free=body.free,
        held={(item.job_id, item.attempt) for item in body.held},
        known_cancelled={(item.job_id, item.attempt) for item in body.held if item.cancelled},
        trouble=body.trouble,
        warm_containers=body.warm_containers,
    )
    found = dispatcher.at_once(worker(), ask)
    park = request.environ.get("reactorcide.park")
    if not found.is_empty or not body.wait or park is None:
        return jsonify(_next_json(found))
    return Response(_held(ask, body.wait, park), mimetype="application/json")


def _held(ask: Ask, wait_s: float, park: Callable[[], Callable[[], None]]) -> Iterator[bytes]:
    """Yield the answer to a held call; no thread waits for it."""
    dispatcher, worker_id = services().remote.dispatcher, worker().worker_id
    # A worker ends its stream only when it is gone: nothing may be assigned to that any more.
    has_closed: Callable[[], bool] = request.environ.get("reactorcide.client_has_ended", lambda: False)
    as_json = _next_as_json()

    def body() -> Iterator[bytes]:
        waiter = Waiter(worker_id, ask, monotonic() + wait_s, has_closed, park())
        try:
            dispatcher.hold(waiter)
            # At once, so that the thread is free.
            yield b""
            while waiter.answer is None:
                waiter.ready = park()
                if waiter.answer is None:
                    yield b""
            # The last call of ``park`` may have come after the answer.
            waiter.ready()
            yield as_json(waiter.answer)
        finally:
            dispatcher.drop(waiter)

    return body()


@api.get("/worker/attempts", responses={200: AssignmentListResponse})
def list_worker_attempts(query: NoQuery) -> Response:
    """List the attempts of the worker that have not ended."""
    leases = services().jobs.store.leases
    return jsonify({"attempts": [_assignment_json(item) for item in leases.unfinished(worker().worker_id)]})


@api.post(f"{OF_ATTEMPT}/renew", responses={200: RenewResponse, 409: ErrorResponse})
def renew_attempt(header: LeaseHeader, path: AttemptPath, query: NoQuery) -> Response:
    """Renew the lease of an attempt."""
    leased = attempt_of(header, path)
    return jsonify({"cancelled": services().remote.attempts.renew(leased)})


@api.put(
    f"{OF_ATTEMPT}/log",
    responses={200: LogEndsResponse, 409: ErrorResponse},
    openapi_extensions={
        "requestBody": {"required": True, "content": {"application/octet-stream": LOG_PIECE}}
    },
)
def put_log_piece(header: LeaseHeader, path: AttemptPath, query: LogPieceQuery) -> Response:
    """Append a piece to the log of an attempt, at most 1 MiB of text and as much of its index."""
    leased = attempt_of(header, path)
    data = request.get_data()
    if query.index_bytes > len(data):
        raise InvalidInput("index_bytes: the body has fewer bytes", "index_bytes")
    begin = len(data) - query.index_bytes
    ends = services().remote.attempts.put_log(
        leased,
        LogEnds(query.offset, query.index_offset),
        data[:begin],
        data[begin:],
        replaces=query.replace,
    )
    return jsonify(ends._asdict())


@api.post(f"{OF_ATTEMPT}/handing-over", responses={204: None, 409: ErrorResponse})
def begin_hand_over(
    header: LeaseHeader, path: AttemptPath, body: HandOverRequest, query: NoQuery
) -> tuple[str, int]:
    """Record that the handover of a command begins; before this answer the command must not run."""
    leased = attempt_of(header, path)
    services().remote.attempts.handing_over(
        leased,
        body.container_id,
        container_started_at=body.container_started_at,
        age_ms=body.age_ms,
        log_offset=body.log_offset,
    )
    return "", 204


@api.post(f"{OF_ATTEMPT}/started", responses={204: None, 409: ErrorResponse})
def attempt_started(
    header: LeaseHeader, path: AttemptPath, body: StartedRequest, query: NoQuery
) -> tuple[str, int]:
    """Record that the command of an attempt runs."""
    services().remote.attempts.started(attempt_of(header, path), age_ms=body.age_ms)
    return "", 204


@api.post(f"{OF_ATTEMPT}/finish", responses={204: None, 409: ErrorResponse})
def finish_attempt(
    header: LeaseHeader, path: AttemptPath, body: FinishRequest, query: NoQuery
) -> tuple[str, int]:
    """End an attempt and its job; safe to repeat with the same body."""
    report = body.model_dump()
    if not _repeats(header, path, report):
        services().remote.attempts.finish(attempt_of(header, path), report)
    return "", 204


@api.post(f"{OF_ATTEMPT}/try-again", responses={204: None, 409: ErrorResponse})
def try_attempt_again(
    header: LeaseHeader, path: AttemptPath, body: TryAgainRequest, query: NoQuery
) -> tuple[str, int]:
    """End an attempt, and have its job run again; safe to repeat with the same body."""
    report = body.model_dump()
    if not _repeats(header, path, report):
        services().remote.attempts.try_again(attempt_of(header, path), report)
    return "", 204


def attempt_of(header: LeaseHeader, path: AttemptPath) -> LeasedAttempt:
    """Return the attempt that a request is about; raises ``AttemptStale`` if it is not the worker's."""
    return services().remote.attempts.find(worker(), path.job_id, path.attempt, header.lease)


def _repeats(header: LeaseHeader, path: AttemptPath, report: dict[str, Any]) -> bool:
    attempts = services().remote.attempts
    return attempts.has_ended(worker(), path.job_id, path.attempt, header.lease, report)


def _next_json(found: Next) -> dict[str, object]:
    return {
        "assigned": [_assignment_json(item) for item in found.assigned],
        "cancelled": [{"job_id": job_id, "attempt": attempt} for job_id, attempt in found.cancelled],
    }


def _assignment_json(leased: LeasedAttempt) -> dict[str, object]:
    return _assignment(services().is_admin, leased)


def _assignment(is_admin: Callable[[str], bool], leased: LeasedAttempt) -> dict[str, object]:
    return assignments.to_json(leased, is_admin=is_admin(leased.job.user_id), now_ms=now_ms())


def _next_as_json() -> Callable[[Next], bytes]:
    """Return a function that writes an answer outside of the request."""
    is_admin = services().is_admin

    def as_json(found: Next) -> bytes:
        try:
            assigned = [_assignment(is_admin, item) for item in found.assigned]
        except StoreError:
            # The next call repeats them.
            assigned = []
        cancelled = [{"job_id": job_id, "attempt": attempt} for job_id, attempt in found.cancelled]
        return json.dumps({"assigned": assigned, "cancelled": cancelled}).encode()

    return as_json
