"""Routes on jobs."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from flask import Response, jsonify

from reactorcide.domain.definition import JOB_FIELDS, JobDefinition
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.jobs import AttemptRecord, Job, JobFilter, RequestKey, log_key
from reactorcide.domain.secrets import redacted_services, redacted_url, redacted_variables
from reactorcide.jobs import access, explain, ids, read
from reactorcide.jobs.cancel import cancel
from reactorcide.jobs.defaults import JobDefaults
from reactorcide.jobs.delete import delete
from reactorcide.jobs.pin import pin
from reactorcide.jobs.rerun import rerun
from reactorcide.jobs.submit import submit, submit_once
from reactorcide.lib.clock import rfc3339, rfc3339_or_none
from reactorcide.web.address import location
from reactorcide.web.api import lists
from reactorcide.web.api.jobs.request import JobRequest
from reactorcide.web.api.jobs.schemas import (
    AttemptListResponse,
    JobListQuery,
    JobListResponse,
    JobPath,
    JobQuery,
    JobResponse,
    SubmitHeader,
    WhyResponse,
)
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.auth import caller
from reactorcide.web.services import services

api = resource("jobs", __name__, tag="jobs")


@api.post("/jobs", responses={200: JobResponse, 201: JobResponse, 404: ErrorResponse, 409: ErrorResponse})
def submit_job(header: SubmitHeader, body: JobRequest, query: NoQuery) -> Response:
    """Submit a job; with an `Idempotency-Key` that was sent before, show the existing job."""
    definition = _definition(body, services().defaults)
    if header.idempotency_key is None:
        return _created(submit(services().jobs, caller(), definition))
    key = RequestKey(header.idempotency_key, _sha256(body))
    job, is_new = submit_once(services().jobs, caller(), definition, key)
    return _created(job) if is_new else jsonify(job_json(job))


@api.get("/jobs", responses={200: JobListResponse})
def list_jobs(query: JobListQuery) -> Response:
    """List jobs, newest first."""
    user = caller()
    if query.cursor is not None and query.offset is not None:
        raise InvalidInput("give either a cursor or an offset", "cursor")
    run_id = None if query.run_id is None else ids.run_id(services().jobs, user, query.run_id)
    is_of_project = run_id is not None and access.may_see_run_of_project(services().jobs, user, run_id)
    lists.check_user(user, query.user_id, "jobs", of_project=is_of_project)
    criteria = JobFilter(
        user_id=query.user_id if user.is_admin or is_of_project else user.user_id,
        member_id=None if user.is_admin or is_of_project else user.user_id,
        statuses=query.status,
        queue_name=query.queue_name,
        source_type=query.source_type,
        name_prefix=query.name,
        run_id=run_id,
        pinned=query.pinned,
    )
    offset = query.offset or 0
    jobs, total = read.page(
        services().jobs,
        criteria,
        limit=query.limit + 1,
        offset=offset,
        after=lists.from_cursor(query.cursor),
        max_chars=lists.MAX_BYTES // query.limit,
    )
    page, next_cursor = lists.split(jobs, query.limit, lambda job: (job.created_at_ms, job.job_id))
    return lists.answer(
        "jobs",
        (job_json(job) | ({lists.TRUNCATED: True} if job.is_cut else {}) for job in page),
        len(page),
        total=total,
        limit=query.limit,
        offset=offset,
        next_cursor=next_cursor,
    )


@api.get("/jobs/<job_id>", responses={200: JobResponse})
def show_job(path: JobPath, query: JobQuery) -> Response:
    """Show a job, at once or as soon as its status changes."""
    with services().slots.long_poll(caller().share, query.wait) as wait_s:
        job = read.wait_for_change(services().jobs, caller(), path.job_id, timeout_s=wait_s)
    return jsonify(job_json(job))


@api.delete("/jobs/<job_id>", responses={204: None, 409: ErrorResponse})
def delete_job(path: JobPath, query: NoQuery) -> tuple[str, int]:
    """Delete a job with its logs and artifacts. An active job is cancelled first. Not for a job of a run."""
    delete(services().jobs, caller(), path.job_id)
    return "", 204


@api.put("/jobs/<job_id>/cancel", responses={200: JobResponse, 409: ErrorResponse})
def cancel_job(path: JobPath, query: NoQuery) -> Response:
    """Cancel a job."""
    return jsonify(job_json(cancel(services().jobs, caller(), path.job_id)))


api.post(
    "/jobs/<job_id>/cancel",
    responses={200: JobResponse, 409: ErrorResponse},
    operation_id="cancel_job_by_post",
)(cancel_job)


@api.post("/jobs/<job_id>/rerun", responses={201: JobResponse, 409: ErrorResponse})
def rerun_job(path: JobPath, query: NoQuery) -> Response:
    """Submit the definition of this job as a new job. Not for a job of a run."""
    return _created(rerun(services().jobs, caller(), path.job_id))


@api.put("/jobs/<job_id>/pin", responses={200: JobResponse, 409: ErrorResponse})
def pin_job(path: JobPath, query: NoQuery) -> Response:
    """Keep a job until somebody deletes it. Not for a job of a run."""
    return jsonify(job_json(pin(services().jobs, caller(), path.job_id, pinned=True)))


@api.delete("/jobs/<job_id>/pin", responses={200: JobResponse, 409: ErrorResponse})
def unpin_job(path: JobPath, query: NoQuery) -> Response:
    """Let retention remove a job again. Not for a job of a run."""
    return jsonify(job_json(pin(services().jobs, caller(), path.job_id, pinned=False)))


@api.get("/jobs/<job_id>/attempts", responses={200: AttemptListResponse})
def list_attempts(path: JobPath, query: NoQuery) -> Response:
    """List the attempts of a job, and how each ended."""
    job = access.get(services().jobs, caller(), path.job_id)
    attempts = read.attempts(services().jobs, job)
    return lists.answer("attempts", (_attempt_json(job, item) for item in attempts), len(attempts))


@api.get("/jobs/<job_id>/why", responses={200: WhyResponse})
def explain_job(path: JobPath, query: NoQuery) -> Response:
    """Explain what a job waits for, and its place in the queue."""
    job = access.get(services().jobs, caller(), path.job_id)
    explanation = explain.explain(services().jobs, job, services().workers())
    return jsonify(
        {
            "status": job.status,
            "reason": explanation.reason,
            "place": explanation.place,
            "next_try_at": rfc3339_or_none(explanation.next_try_at_ms),
        }
    )


def job_json(job: Job) -> dict[str, Any]:
    """Return the JSON of a job for all routes; the keys are those of ``JobResponse``."""
    return {
        "job_id": job.job_id,
        "user_id": job.user_id,
        "status": job.status,
        **_definition_json(job.definition),
        "created_at": rfc3339(job.created_at_ms),
        "updated_at": rfc3339(job.updated_at_ms),
        "queued_at": rfc3339_or_none(job.queued_at_ms),
        "started_at": rfc3339_or_none(job.started_at_ms),
        "completed_at": rfc3339_or_none(job.completed_at_ms),
        "exit_code": job.exit_code,
        "error": job.error,
        "attempt": job.attempt,
        "worker_id": job.worker_id,
        "corndogs_task_id": job.corndogs_task_id,
        "logs_object_key": job.logs_object_key,
        "artifacts_object_key": job.artifacts_object_key,
        "rerun_of": job.rerun_of,
        "run_id": job.run_id,
        "node": job.node,
        "pinned": job.pinned,
        "log_truncated": job.log_truncated,
    }


def _definition_json(definition: JobDefinition) -> dict[str, Any]:
    content = {
        item.json_name: getattr(definition, item.name)
        if item.about.source_type in (None, definition.source_type)
        else None
        for item in JOB_FIELDS
    }
    if definition.git_url is not None:
        content["git_url"] = redacted_url(definition.git_url)
    if definition.services is not None:
        content["services"] = {
            name: asdict(item)
            for name, item in redacted_services(definition.services, definition.secret_env_vars).items()
        }
    return content | {"job_env_vars": redacted_variables(definition)}


def _attempt_json(job: Job, item: AttemptRecord) -> dict[str, Any]:
    return {
        "attempt": item.attempt,
        "worker_id": item.worker_id,
        "container_id": item.container_id,
        "claimed_at": rfc3339(item.claimed_at_ms),
        "started_at": rfc3339_or_none(item.started_at_ms),
        "completed_at": rfc3339_or_none(item.completed_at_ms),
        "exit_code": item.exit_code,
        "error": item.error,
        "logs_object_key": log_key(job.job_id, item.attempt),
        "log_truncated": item.log_truncated,
    }


def _created(job: Job) -> Response:
    response = jsonify(job_json(job))
    response.status_code = 201
    response.headers["Location"] = location(f"/jobs/{job.job_id}")
    return response


def _sha256(body: JobRequest) -> bytes:
    """Return the hash of a submission, independent of the formatting of its JSON."""
    fields = body.model_dump(exclude_unset=True)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).digest()


def _definition(body: JobRequest, defaults: JobDefaults) -> JobDefinition:
    values = {
        item.name: item.from_request(getattr(body, item.json_name), body.source_type) for item in JOB_FIELDS
    }
    if values["source_job_id"] is not None:
        values["source_job_id"] = ids.job_id(services().jobs, caller(), values["source_job_id"])
    decided = {
        "runner_image": body.runner_image or defaults.image,
        "secret_env_vars": body.secret_names,
        "services": body.parsed_services,
        "job_dir": body.job_dir or body.code_dir,
        "cpu_limit": defaults.cpus(body.cpu_limit),
        "memory_limit_bytes": defaults.memory_bytes(body.memory_limit_bytes),
    }
    return JobDefinition(**values | decided)
