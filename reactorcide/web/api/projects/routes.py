"""Routes on projects and their members."""

from typing import Any

from flask import Response, jsonify

from reactorcide.domain.projects import Project, ProjectRole, Visibility
from reactorcide.lib.clock import rfc3339
from reactorcide.projects import change, members, read
from reactorcide.web.api import PREFIX, lists
from reactorcide.web.api.projects.schemas import (
    MemberPath,
    MemberRequest,
    ProjectChange,
    ProjectListQuery,
    ProjectListResponse,
    ProjectPath,
    ProjectRequest,
    ProjectResponse,
)
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.auth import caller
from reactorcide.web.services import services

api = resource("projects", __name__, tag="projects")


@api.post("/projects", responses={201: ProjectResponse, 409: ErrorResponse})
def create_project(body: ProjectRequest, query: NoQuery) -> Response:
    """Create a project; the caller becomes its owner."""
    visibility = Visibility(body.visibility)
    project = change.create(services().jobs, caller(), body.name, body.git_url, visibility)
    response = _shown(project.project_id)
    response.status_code = 201
    response.headers["Location"] = f"{PREFIX}/projects/{project.project_id}"
    return response


@api.get("/projects", responses={200: ProjectListResponse})
def list_projects(query: ProjectListQuery) -> Response:
    """List the projects that the caller may see, newest first."""
    after = lists.from_cursor(query.cursor)
    found, total = read.page(services().jobs, caller(), name=query.name, limit=query.limit + 1, after=after)
    shown, next_cursor = lists.split(
        found, query.limit, lambda project: (project.created_at_ms, project.project_id)
    )
    return jsonify(
        {
            "projects": [_project_json(project) for project in shown],
            "total": total,
            "limit": query.limit,
            "next_cursor": next_cursor,
        }
    )


@api.get("/projects/<project_id>", responses={200: ProjectResponse})
def show_project(path: ProjectPath, query: NoQuery) -> Response:
    """Show a project."""
    return _shown(path.project_id)


@api.patch("/projects/<project_id>", responses={200: ProjectResponse, 409: ErrorResponse})
def change_project(path: ProjectPath, body: ProjectChange, query: NoQuery) -> Response:
    """Change a project; for its owners."""
    change.change(
        services().jobs,
        caller(),
        path.project_id,
        name=body.name,
        git_url=body.git_url,
        visibility=None if body.visibility is None else Visibility(body.visibility),
    )
    return _shown(path.project_id)


@api.delete("/projects/<project_id>", responses={204: None, 409: ErrorResponse})
def delete_project(path: ProjectPath, query: NoQuery) -> tuple[str, int]:
    """Remove a project whose runs are over; for its owners. Only admins see its runs from then on."""
    change.remove(services().jobs, caller(), path.project_id)
    return "", 204


@api.put("/projects/<project_id>/members", responses={200: ProjectResponse, 409: ErrorResponse})
def set_member(path: ProjectPath, body: MemberRequest, query: NoQuery) -> Response:
    """Give a user a role in a project, in place of an earlier one; for its owners."""
    members.set_role(services().jobs, caller(), path.project_id, body.username, ProjectRole(body.role))
    return _shown(path.project_id)


@api.delete("/projects/<project_id>/members/<user_id>", responses={204: None, 409: ErrorResponse})
def remove_member(path: MemberPath, query: NoQuery) -> tuple[str, int]:
    """Remove a member of a project; for its owners, and for the members themselves."""
    members.remove(services().jobs, caller(), path.project_id, path.user_id)
    return "", 204


def _shown(project_id: str) -> Response:
    found = read.view(services().jobs, caller(), project_id)
    return jsonify(
        {
            **_project_json(found.project),
            "role": found.role,
            "members": [
                {"user_id": item.user_id, "username": item.username, "role": item.role}
                for item in found.members
            ],
        }
    )


def _project_json(project: Project) -> dict[str, Any]:
    return {
        "project_id": project.project_id,
        "name": project.name,
        "git_url": project.git_url,
        "visibility": project.visibility,
        "created_at": rfc3339(project.created_at_ms),
        "updated_at": rfc3339(project.updated_at_ms),
    }
