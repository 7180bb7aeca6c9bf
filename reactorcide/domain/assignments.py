"""Assignments of attempts to workers on other machines, as JSON. No time crosses the wire, only durations."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.jobs import Job, JobStatus, OpenAttempt
from reactorcide.domain.services import JobService
from reactorcide.domain.workers import AttemptLease, LeasedAttempt

_JOB = ("job_id", "attempt", "user_id", "run_id", "node")
_COUNTERS = ("retries_used", "killed_preparations", "preparation_failures")
_OF_CONTAINER = ("container_id", "container_started_at", "log_offset")
_AGES = (("handing_over_at_ms", "handing_over_age_ms"), ("started_at_ms", "started_age_ms"))
_TUPLES = ("secret_env_vars", "masked")


def to_json(leased: LeasedAttempt, *, is_admin: bool, now_ms: int) -> dict[str, Any]:
    """Return an attempt for its worker, with all secrets of its job."""
    job, attempt = leased.job, leased.attempt
    return {
        **{name: getattr(job, name) for name in (*_JOB, *_COUNTERS)},
        **{name: getattr(attempt, name) for name in _OF_CONTAINER},
        **{age: _age(now_ms, getattr(attempt, at)) for at, age in _AGES},
        "cancelled": job.status is JobStatus.CANCELLED,
        "by_admin": is_admin,
        "definition": asdict(job.definition),
        "lease_token": leased.lease.token,
        "lost_after": leased.lease.lost_after_s,
    }


def from_json(data: Mapping[str, Any], worker_id: str, *, now_ms: int) -> LeasedAttempt:
    """Return the attempt of an assignment; fields of a later version are ignored.

    Raises ``KeyError``, ``TypeError``, ``ValueError`` or ``AttributeError`` for anything else.
    """
    job = Job(
        **{name: data[name] for name in _JOB},
        **{name: data.get(name, 0) for name in _COUNTERS},
        definition=_definition(data["definition"]),
        status=JobStatus.CANCELLED if data.get("cancelled") else JobStatus.RUNNING,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        worker_id=worker_id,
    )
    ages: dict[str, Any] = {
        at: None if data.get(age) is None else now_ms - int(data[age]) for at, age in _AGES
    }
    attempt = OpenAttempt(
        job=job,
        worker_id=worker_id,
        heartbeat_at_ms=now_ms,
        **{name: data[name] for name in _OF_CONTAINER},
        **ages,
    )
    lease = AttemptLease(str(data["lease_token"]), float(data["lost_after"]))
    return LeasedAttempt(attempt, lease, claimed_at_ms=now_ms)


def _age(now_ms: int, at_ms: int | None) -> int | None:
    return None if at_ms is None else max(0, now_ms - at_ms)


def _definition(data: Mapping[str, Any]) -> JobDefinition:
    known = {item.name for item in fields(JobDefinition)}
    values = {name: value for name, value in data.items() if name in known}
    for name in _TUPLES:
        values[name] = tuple(values.get(name, ()))
    services = values.get("services")
    if services is not None:
        values["services"] = {name: JobService(**service) for name, service in services.items()}
    return JobDefinition(**values)
