"""The workers on other machines: added by an admin, registered once, drained and forgotten."""

import hashlib
import logging
import secrets
from collections.abc import Sequence

from reactorcide.domain.audit import Action, Actor, AuditEntry
from reactorcide.domain.errors import Forbidden, NotFound, Unauthorized
from reactorcide.domain.workers import RemoteWorker, WorkerSession, WorkerView, agreed_protocol
from reactorcide.jobs import StoredJobs
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id

log = logging.getLogger("reactorcide.jobs")

_VALID_FOR_MS = 24 * 3_600_000
MIN_SECRET_CHARS = 32


def add(context: StoredJobs, name: str, queues: Sequence[str], *, by: Actor) -> tuple[str, str]:
    """Add a worker, and return its id and its registration token, which is valid once and for a day.

    Raises ``Conflict`` if there is a worker of that name.
    """
    worker_id = f"{name}-{new_id()[-8:]}"
    value = f"rcw_{secrets.token_hex(32)}"
    at_ms = now_ms()
    with context.store.transaction() as tx:
        tx.workers.add(
            worker_id,
            name,
            tuple(dict.fromkeys(queues)),
            registration_sha256=_sha256(value),
            expires_at_ms=at_ms + _VALID_FOR_MS,
            now_ms=at_ms,
        )
        tx.audit.add(AuditEntry(at_ms=at_ms, by=by, action=Action.WORKER_ADD, subject=worker_id))
    return worker_id, value


def register(context: StoredJobs, registration_token: str, secret: str) -> str:
    """Store the secret that a worker has chosen, and return the worker's id.

    A repetition with the same secret returns the same. Raises ``Forbidden`` if the token is not valid.
    """
    worker_id = context.store.workers.register(_sha256(registration_token), _sha256(secret), now_ms=now_ms())
    if worker_id is None:
        raise Forbidden(
            "this registration token is not known, was used or has expired; add the worker again, with: "
            "reactorcide workers add"
        )
    log.info("worker %s has registered", worker_id)
    return worker_id


def authenticate(context: StoredJobs, secret: str) -> RemoteWorker:
    """Return the worker with a secret; raises ``Unauthorized``."""
    worker = context.store.workers.by_secret(_sha256(secret))
    if worker is None:
        raise Unauthorized("this worker is not known; it was forgotten, or this is not a worker's secret")
    return worker


def begin_session(context: StoredJobs, worker: RemoteWorker, session: WorkerSession) -> int:
    """Begin a session of a worker, which ends the one before; return the version of the protocol.

    Raises ``Conflict`` if the worker is of a version that this one does not understand.
    """
    protocol = agreed_protocol(session.protocol)
    context.store.workers.begin_session(worker.worker_id, session, now_ms=now_ms())
    log.info("worker %s has connected, from %s", worker.worker_id, session.host)
    return protocol


def drain(context: StoredJobs, worker_id: str, *, is_draining: bool, by: Actor) -> RemoteWorker:
    """Have a worker take no more jobs, or take them again; raises ``NotFound``."""
    worker = find(context, worker_id)
    action = Action.WORKER_DRAIN if is_draining else Action.WORKER_RESUME
    with context.store.transaction() as tx:
        tx.workers.set_draining(worker.worker_id, is_draining=is_draining)
        tx.audit.add(AuditEntry(at_ms=now_ms(), by=by, action=action, subject=worker.worker_id))
    return find(context, worker.worker_id)


def forget(context: StoredJobs, worker_id: str, *, by: Actor) -> None:
    """Remove a worker; its running jobs count as lost after the usual time. Raises ``NotFound``."""
    worker = find(context, worker_id)
    with context.store.transaction() as tx:
        tx.workers.remove(worker.worker_id)
        tx.audit.add(AuditEntry(at_ms=now_ms(), by=by, action=Action.WORKER_FORGET, subject=worker.worker_id))


def find(context: StoredJobs, worker_id: str) -> RemoteWorker:
    """Return a worker by its id or its name; raises ``NotFound``."""
    worker = context.store.workers.find(worker_id)
    if worker is None:
        raise NotFound(f"there is no worker {worker_id} on another machine")
    return worker


def views(context: StoredJobs, *, away_after_s: float) -> list[WorkerView]:
    """Return the registered workers; one that was not seen for ``away_after_s`` cannot claim jobs."""
    running: dict[str, list[str]] = {}
    for worker_id, job_id in context.store.leases.running():
        running.setdefault(worker_id, []).append(job_id)
    at_ms = now_ms()
    return [
        WorkerView(
            worker_id=worker.worker_id,
            host=worker.host,
            # One that has no common queue with what it was bound to takes nothing.
            concurrency=0 if worker.taken_queues is None else worker.concurrency,
            running_job_ids=tuple(sorted(running.get(worker.worker_id, ()))),
            last_seen_ms=worker.last_seen_at_ms or worker.created_at_ms,
            queues=worker.taken_queues or (),
            warm_containers=worker.warm_containers,
            trouble=_trouble(worker, at_ms, away_after_s),
            version=worker.version,
            is_draining=worker.is_draining,
            away_lost_after_s=worker.lost_after_s if _is_away(worker, at_ms, away_after_s) else None,
        )
        for worker in context.store.workers.all()
        if worker.last_seen_at_ms is not None
    ]


def _trouble(worker: RemoteWorker, at_ms: int, away_after_s: float) -> str | None:
    if worker.is_draining:
        return f"worker {worker.worker_id} is drained: it takes no more jobs"
    if _is_away(worker, at_ms, away_after_s):
        return f"worker {worker.worker_id} is not connected"
    return worker.trouble


def _is_away(worker: RemoteWorker, at_ms: int, away_after_s: float) -> bool:
    return worker.last_seen_at_ms is None or at_ms - worker.last_seen_at_ms > away_after_s * 1000


def _sha256(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()
