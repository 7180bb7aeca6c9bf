"""Routes on schedules of projects."""

from typing import Any

from flask import Response, jsonify

from reactorcide.domain.schedules import WhenRunning
from reactorcide.lib.clock import rfc3339
from reactorcide.schedules import change, read
from reactorcide.schedules.read import ScheduleView
from reactorcide.schedules.start import start_by_hand
from reactorcide.web.address import location
from reactorcide.web.api.projects.schemas import ProjectPath
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schedules.schemas import (
    ScheduleChange,
    ScheduleListResponse,
    SchedulePath,
    ScheduleRequest,
    ScheduleResponse,
)
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.auth import caller
from reactorcide.web.services import services

api = resource("schedules", __name__, tag="schedules")


@api.get("/projects/<project_id>/schedules", responses={200: ScheduleListResponse})
def list_schedules(path: ProjectPath, query: NoQuery) -> Response:
    """List the schedules of a project by name, with the next due time; for those who may start its runs."""
    listed = read.listed(services().jobs, caller(), path.project_id)
    return jsonify({"schedules": [_schedule_json(view) for view in listed]})


@api.post("/projects/<project_id>/schedules", responses={201: ScheduleResponse, 409: ErrorResponse})
def create_schedule(path: ProjectPath, body: ScheduleRequest, query: NoQuery) -> Response:
    """Create a schedule of a project; for its owners."""
    schedule = change.create(services().jobs, caller(), path.project_id, _fields(body))
    response = _schedule_response(schedule.project_id, schedule.schedule_id)
    response.status_code = 201
    of_project = f"/projects/{schedule.project_id}"
    response.headers["Location"] = location(f"{of_project}/schedules/{schedule.schedule_id}")
    return response


@api.get("/projects/<project_id>/schedules/<schedule_id>", responses={200: ScheduleResponse})
def show_schedule(path: SchedulePath, query: NoQuery) -> Response:
    """Show a schedule with its next due times, and the results of the last ones."""
    return _schedule_response(path.project_id, path.schedule_id)


@api.patch(
    "/projects/<project_id>/schedules/<schedule_id>", responses={200: ScheduleResponse, 409: ErrorResponse}
)
def change_schedule(path: SchedulePath, body: ScheduleChange, query: NoQuery) -> Response:
    """Change a schedule; its next due time is computed from now. For the project's owners."""
    change.change(services().jobs, caller(), path.project_id, path.schedule_id, _fields(body))
    return _schedule_response(path.project_id, path.schedule_id)


@api.delete("/projects/<project_id>/schedules/<schedule_id>", responses={204: None})
def delete_schedule(path: SchedulePath, query: NoQuery) -> tuple[str, int]:
    """Remove a schedule; its runs stay. For the project's owners."""
    change.remove(services().jobs, caller(), path.project_id, path.schedule_id)
    return "", 204


@api.post(
    "/projects/<project_id>/schedules/<schedule_id>/run",
    responses={200: ScheduleResponse, 409: ErrorResponse},
)
def run_schedule(path: SchedulePath, query: NoQuery) -> Response:
    """Start the runs of a schedule now; its newest occurrence names them."""
    # As with other runs, the repository may be slow.
    with services().slots.required(caller().share):
        start_by_hand(services().runs, caller(), path.project_id, path.schedule_id)
    return _schedule_response(path.project_id, path.schedule_id)


def _fields(body: ScheduleRequest | ScheduleChange) -> dict[str, Any]:
    fields = body.model_dump(exclude_unset=isinstance(body, ScheduleChange))
    for name in ("branch", "workflow"):
        if name in fields:
            fields[name] = fields[name] or None
    if "when_running" in fields:
        fields["when_running"] = WhenRunning(fields["when_running"])
    if "vars" in fields:
        fields["variables"] = fields.pop("vars")
    return fields


def _schedule_response(project_id: str, schedule_id: str) -> Response:
    view = read.view(services().jobs, caller(), project_id, schedule_id)
    occurrences = [
        {
            "due_at": rfc3339(item.due_at_ms),
            "at": rfc3339(item.at_ms),
            "outcome": item.outcome,
            "run_ids": item.run_ids,
        }
        for item in view.occurrences
    ]
    return jsonify({**_schedule_json(view), "occurrences": occurrences})


def _schedule_json(view: ScheduleView) -> dict[str, Any]:
    schedule = view.schedule
    return {
        "schedule_id": schedule.schedule_id,
        "project_id": schedule.project_id,
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "branch": schedule.branch,
        "workflow": schedule.workflow,
        "vars": schedule.variables,
        "enabled": schedule.enabled,
        "when_running": schedule.when_running,
        "next_due_at": [rfc3339(at_ms) for at_ms in view.next_due_at_ms],
        "waiting": view.waiting,
        "created_at": rfc3339(schedule.created_at_ms),
        "updated_at": rfc3339(schedule.updated_at_ms),
    }
