"""Routes on projects and their members."""

from collections.abc import Iterable
from typing import Any

from flask import Response, jsonify

from reactorcide.domain.projects import Credential, Project, ProjectRole
from reactorcide.domain.statuses import StatusRecord
from reactorcide.lib.clock import rfc3339, rfc3339_or_none
from reactorcide.projects import change, members, read
from reactorcide.projects.badge import badge
from reactorcide.runs import check_project as credentials
from reactorcide.web.address import location
from reactorcide.web.api import PREFIX, lists
from reactorcide.web.api.media import BADGE
from reactorcide.web.api.projects.schemas import (
    BadgeQuery,
    DeployKeyResponse,
    MemberPath,
    MemberRequest,
    NewProjectResponse,
    ProjectChange,
    ProjectCheckResponse,
    ProjectListQuery,
    ProjectListResponse,
    ProjectPath,
    ProjectRequest,
    ProjectResponse,
    StatusListQuery,
    StatusListResponse,
    WebhookSecretResponse,
)
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.auth import caller
from reactorcide.web.services import services

api = resource("projects", __name__, tag="projects")


@api.post("/projects", responses={201: NewProjectResponse, 409: ErrorResponse})
def create_project(body: ProjectRequest, query: NoQuery) -> tuple[Response, int, dict[str, str]]:
    """Create a project; the caller becomes its owner."""
    project, secret = change.create(
        services().jobs, caller(), body.name, body.git_url, body.settings(), token=body.token
    )
    content = _view_json(project.project_id) | {"webhook_secret": secret}
    return jsonify(content), 201, {"Location": location(f"/projects/{project.project_id}")}


@api.get("/projects", responses={200: ProjectListResponse})
def list_projects(query: ProjectListQuery) -> Response:
    """List the projects that the caller may see, newest first."""
    after = lists.from_cursor(query.cursor)
    items, total = read.page(services().jobs, caller(), name=query.name, limit=query.limit + 1, after=after)
    return lists.page(
        "projects",
        items,
        query.limit,
        lambda project: (project.created_at_ms, project.project_id),
        _project_json,
        total=total,
        limit=query.limit,
    )


@api.get("/projects/<project_id>", responses={200: ProjectResponse})
def show_project(path: ProjectPath, query: NoQuery) -> Response:
    """Show a project."""
    return _project_response(path.project_id)


@api.get("/projects/<project_id>/badge.svg", responses={200: {"content": {"image/svg+xml": BADGE}}})
def show_badge(path: ProjectPath, query: BadgeQuery) -> Response:
    """Return an image with the result of the last runs of a branch, for a README file."""
    svg = badge(services().jobs, caller(), path.project_id, query.branch)
    response = Response(svg, mimetype="image/svg+xml")
    response.headers["Cache-Control"] = "no-cache"
    return response


@api.patch("/projects/<project_id>", responses={200: ProjectResponse, 409: ErrorResponse})
def change_project(path: ProjectPath, body: ProjectChange, query: NoQuery) -> Response:
    """Change a project; for its owners."""
    fields = body.settings() | ({} if body.name is None else {"name": body.name})
    change.change(
        services().jobs,
        caller(),
        path.project_id,
        fields,
        git_url=body.git_url,
        token=body.token,
        known_hosts=body.known_hosts,
    )
    return _project_response(path.project_id)


@api.post("/projects/<project_id>/webhook-secret", responses={201: WebhookSecretResponse})
def renew_webhook_secret(path: ProjectPath, query: NoQuery) -> tuple[Response, int]:
    """Create a new secret for the webhook of a project; for its owners.

    The previous one stays valid until the next renewal or until it is deleted.
    """
    secret = change.renew_webhook_secret(services().jobs, caller(), path.project_id)
    return jsonify({"webhook_url": _webhook_url(path.project_id), "webhook_secret": secret}), 201


@api.delete("/projects/<project_id>/webhook-secret", responses={204: None})
def forget_webhook_secret(path: ProjectPath, query: NoQuery) -> tuple[str, int]:
    """Revoke the secret from before the last renewal; for owners."""
    change.forget_previous_webhook_secret(services().jobs, caller(), path.project_id)
    return "", 204


@api.post("/projects/<project_id>/deploy-key", responses={201: DeployKeyResponse})
def renew_deploy_key(path: ProjectPath, query: NoQuery) -> tuple[Response, int]:
    """Create a new SSH key for clones of the repository; replaces an earlier one; for owners."""
    public = change.renew_deploy_key(services().jobs, caller(), path.project_id)
    return jsonify({"public_key": public}), 201


@api.delete("/projects/<project_id>/deploy-key", responses={204: None})
def remove_deploy_key(path: ProjectPath, query: NoQuery) -> tuple[str, int]:
    """Remove the SSH key of a project; for owners."""
    change.remove_deploy_key(services().jobs, caller(), path.project_id)
    return "", 204


@api.delete("/projects/<project_id>", responses={204: None, 409: ErrorResponse})
def delete_project(path: ProjectPath, query: NoQuery) -> tuple[str, int]:
    """Remove a project whose runs have ended, with everything it owns; for its owners."""
    change.remove(services().jobs, caller(), path.project_id)
    return "", 204


@api.put("/projects/<project_id>/members", responses={200: ProjectResponse, 409: ErrorResponse})
def set_member(path: ProjectPath, body: MemberRequest, query: NoQuery) -> Response:
    """Give a user a role in a project; replaces an earlier one; for its owners."""
    members.set_role(services().jobs, caller(), path.project_id, body.username, ProjectRole(body.role))
    return _project_response(path.project_id)


@api.delete("/projects/<project_id>/members/<user_id>", responses={204: None, 409: ErrorResponse})
def remove_member(path: MemberPath, query: NoQuery) -> tuple[str, int]:
    """Remove a member of a project; for its owners, and for the members themselves."""
    members.remove(services().jobs, caller(), path.project_id, path.user_id)
    return "", 204


@api.post("/projects/<project_id>/check", responses={200: ProjectCheckResponse})
def check_project(path: ProjectPath, query: NoQuery) -> Response:
    """Fetch the project's repository and ask its forge about the token; for its owners.

    This takes up to a minute, depending on these servers.
    """
    with services().slots.required(caller().share):
        checks = credentials.check(services().runs, services().http, caller(), path.project_id)
    return jsonify({"repository": checks.repository, "token": checks.token})


@api.get("/projects/<project_id>/statuses", responses={200: StatusListResponse})
def list_statuses(path: ProjectPath, query: StatusListQuery) -> Response:
    """List the project's commit statuses, newest first: the next one to send, and the last sent one."""
    after = lists.from_cursor(query.cursor)
    items = read.statuses(services().jobs, caller(), path.project_id, limit=query.limit + 1, after=after)
    page, next_cursor = lists.split(items, query.limit, lambda item: (item.created_at_ms, item.status_id))
    return jsonify({"statuses": [_status_json(item) for item in page], "next_cursor": next_cursor})


def _status_json(status: StatusRecord) -> dict[str, Any]:
    return {
        "status_id": status.status_id,
        "run_id": status.run_id,
        "sha": status.sha,
        "context": status.context,
        "state": status.state,
        "description": status.description,
        "created_at": rfc3339(status.created_at_ms),
        "owed_since": rfc3339_or_none(status.owed_since_ms),
        "failures": status.failures,
        "problem": status.problem,
        "sent_state": status.sent_state,
        "sent_description": status.sent_description,
        "sent_at": rfc3339_or_none(status.sent_at_ms),
    }


def _project_response(project_id: str) -> Response:
    return jsonify(_view_json(project_id))


def _view_json(project_id: str) -> dict[str, Any]:
    view = read.view(services().jobs, caller(), project_id)
    return {
        **_project_json(view.project),
        "role": view.role,
        "members": [
            {"user_id": item.user_id, "username": item.username, "role": item.role} for item in view.members
        ],
        "settings": None
        if view.credentials is None
        else _settings_json(view.project, view.credentials.values(), view.status_problem),
    }


def _settings_json(
    project: Project, credentials: Iterable[Credential], status_problem: str | None
) -> dict[str, Any]:
    return {
        "forge": project.forge,
        "forge_url": project.forge_url,
        "default_branch": project.default_branch,
        "default_image": project.default_image,
        "queue": project.queue,
        "pull_requests": project.pull_requests,
        "allowed_events": project.allowed_events,
        "max_running": project.max_running,
        "builder": project.builder,
        "webhook_url": _webhook_url(project.project_id),
        "status_problem": status_problem,
        "credentials": [
            {"kind": item.kind, "public": item.public, "created_at": rfc3339(item.created_at_ms)}
            for item in credentials
        ],
    }


def _webhook_url(project_id: str) -> str:
    return f"{(services().public_url or '').rstrip('/')}{PREFIX}/hooks/{project_id}"


def _project_json(project: Project) -> dict[str, Any]:
    return {
        "project_id": project.project_id,
        "name": project.name,
        "git_url": project.git_url,
        "visibility": project.visibility,
        "disabled": project.disabled,
        "created_at": rfc3339(project.created_at_ms),
        "updated_at": rfc3339(project.updated_at_ms),
    }
