"""Routes on runs."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from flask import Response, jsonify

from reactorcide.domain.jobs import RequestKey
from reactorcide.domain.reports import TestCounts
from reactorcide.domain.runs import Node, Run, RunFilter, RunSource
from reactorcide.jobs import access
from reactorcide.lib.clock import rfc3339, rfc3339_or_none
from reactorcide.runs import read
from reactorcide.runs.approve import approve
from reactorcide.runs.cancel import cancel
from reactorcide.runs.delete import delete
from reactorcide.runs.pin import pin
from reactorcide.runs.read import RunView
from reactorcide.runs.request import DEFAULT_REPOSITORY, Start
from reactorcide.runs.rerun import rerun
from reactorcide.runs.start import start
from reactorcide.web.address import location
from reactorcide.web.api import lists
from reactorcide.web.api.jobs.schemas import JobQuery, SubmitHeader
from reactorcide.web.api.media import WORKFLOW
from reactorcide.web.api.resource import resource
from reactorcide.web.api.runs.schemas import (
    EventResponse,
    RerunRequest,
    RunListQuery,
    RunListResponse,
    RunPath,
    RunRequest,
    RunResponse,
)
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.auth import caller
from reactorcide.web.services import services

api = resource("runs", __name__, tag="runs")


@api.post("/runs", responses={200: RunResponse, 201: RunResponse, 404: ErrorResponse, 409: ErrorResponse})
def start_run(header: SubmitHeader, body: RunRequest, query: NoQuery) -> Response:
    """Start a run of a workflow; with an `Idempotency-Key` that was sent before, show the existing run.

    An invalid workflow file makes a failed run with all its errors.
    """
    order = Start(
        source=RunSource(git_url=body.git_url, git_ref=body.git_ref or body.ref, source_id=body.source_id),
        project=body.project,
        workflow=body.workflow,
        event=body.event.model_dump(exclude={"is_fork"}),
        changed=body.changed_files,
        variables=body.vars,
        repository=body.repository or DEFAULT_REPOSITORY,
        is_fork=body.event.is_fork,
        environment=body.environment,
        jobs=body.jobs,
        secrets=body.secrets,
    )
    key = None
    if header.idempotency_key is not None:
        sent = json.dumps({"run": body.model_dump(exclude_unset=True)}, sort_keys=True)
        key = RequestKey(header.idempotency_key, hashlib.sha256(sent.encode()).digest())
    # Fetching from a slow server must not take every thread of the service.
    with services().slots.required(caller().share):
        run, is_new = start(services().runs, caller(), order, key)
    response = _details(run)
    if is_new:
        response.status_code = 201
        response.headers["Location"] = location(f"/runs/{run.run_id}")
    return response


@api.get("/runs", responses={200: RunListResponse, 404: ErrorResponse})
def list_runs(query: RunListQuery) -> Response:
    """List the runs that the caller started, or (`project`) those of a project, newest first."""
    user = caller()
    project_id = None
    if query.project is not None:
        project_id = access.project(services().jobs, user, query.project).project_id
    else:
        lists.check_user(user, query.user_id, "runs")
    criteria = RunFilter(
        user_id=query.user_id if user.is_admin or project_id is not None else user.user_id,
        project_id=project_id,
        member_id=None if user.is_admin or project_id is not None else user.user_id,
        workflow_id=query.workflow,
        branch=query.branch,
        event=query.event,
        status=query.status,
    )
    after = lists.from_cursor(query.cursor)
    runs, total = read.page(services().runs, criteria, limit=query.limit + 1, after=after)
    return lists.page(
        "runs",
        runs,
        query.limit,
        lambda run: (run.created_at_ms, run.run_id),
        _run_json,
        total=total,
        limit=query.limit,
    )


@api.get("/runs/<run_id>", responses={200: RunResponse})
def show_run(path: RunPath, query: JobQuery) -> Response:
    """Show a run with its nodes, at once or as soon as its status or that of a node changes."""
    with services().slots.long_poll(caller().share, query.wait) as wait_s:
        view = read.wait_for_change(services().runs, caller(), path.run_id, timeout_s=wait_s)
    return jsonify(_view_json(view))


@api.get("/runs/<run_id>/file", responses={200: {"content": {"text/plain": WORKFLOW}}})
def show_run_file(path: RunPath, query: NoQuery) -> Response:
    """Return the workflow file of a run as it was."""
    return Response(read.file(services().runs, caller(), path.run_id), mimetype="text/plain")


@api.post("/runs/<run_id>/cancel", responses={200: RunResponse, 409: ErrorResponse})
def cancel_run(path: RunPath, query: NoQuery) -> Response:
    """Cancel a run: its active jobs are cancelled, and waiting nodes never start."""
    return _details(cancel(services().runs, caller(), path.run_id))


@api.post("/runs/<run_id>/approve", responses={200: RunResponse, 409: ErrorResponse})
def approve_run(path: RunPath, query: NoQuery) -> Response:
    """Approve a pull request of a fork: all runs that wait for approval at the same commit start."""
    return _details(approve(services().runs, caller(), path.run_id))


@api.post("/runs/<run_id>/rerun", responses={200: RunResponse, 409: ErrorResponse})
def rerun_run(path: RunPath, body: RerunRequest, query: NoQuery) -> Response:
    """Repeat an ended run, all of it or what failed, as its next attempt."""
    return _details(rerun(services().runs, caller(), path.run_id, body.only))


@api.delete("/runs/<run_id>", responses={204: None, 409: ErrorResponse})
def delete_run(path: RunPath, query: NoQuery) -> tuple[str, int]:
    """Delete an ended run, with its jobs, their logs and artifacts."""
    delete(services().runs, caller(), path.run_id)
    return "", 204


@api.put("/runs/<run_id>/pin", responses={200: RunResponse})
def pin_run(path: RunPath, query: NoQuery) -> Response:
    """Keep a run and its jobs until somebody deletes it."""
    return _details(pin(services().runs, caller(), path.run_id, pinned=True))


@api.delete("/runs/<run_id>/pin", responses={200: RunResponse})
def unpin_run(path: RunPath, query: NoQuery) -> Response:
    """Let retention remove a run and its jobs again."""
    return _details(pin(services().runs, caller(), path.run_id, pinned=False))


def _details(run: Run) -> Response:
    return jsonify(_view_json(read.view(services().runs, caller(), run.run_id)))


def _view_json(view: RunView) -> dict[str, Any]:
    nodes = [_node_json(node, view.waits.get(node.name)) for node in view.nodes]
    tests = [node.tests for node in view.nodes if node.tests is not None]
    total = asdict(sum(tests, TestCounts())) if tests else None
    return _run_json(view.run) | {"nodes": nodes, "tests": total}


def _run_json(run: Run) -> dict[str, Any]:
    completed_at = rfc3339_or_none(run.completed_at_ms)
    return {
        "run_id": run.run_id,
        "user_id": run.user_id,
        "project_id": run.project_id,
        "number": run.number,
        "attempt": run.attempt,
        "workflow": run.workflow_id,
        "workflow_name": run.workflow_name,
        "file": run.file,
        "status": run.status,
        "reason": run.reason,
        "warnings": list(run.warnings),
        "pinned": run.pinned,
        "trusted": run.is_trusted,
        "waits_for_approval": run.is_held,
        "event": {name: run.event.get(name) for name in EventResponse.model_fields},
        "git_url": run.source.git_url,
        "git_ref": run.source.git_ref,
        "source_id": run.source.source_id,
        "sha": run.sha,
        "created_at": rfc3339(run.created_at_ms),
        "updated_at": rfc3339(run.updated_at_ms),
        "completed_at": completed_at,
    }


def _node_json(node: Node, waits: str | None) -> dict[str, Any]:
    return {
        "name": node.name,
        "job": node.job_name,
        "matrix": dict(node.combination),
        "needs": list(node.needs),
        "condition": node.condition,
        "allow_failure": node.allow_failure,
        "status": node.status,
        "reason": node.reason or waits or node.job_error,
        "job_id": node.job_id,
        "jobs": node.jobs,
        "tests": None if node.tests is None else asdict(node.tests),
    }
