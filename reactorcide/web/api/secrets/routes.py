"""Routes on named secrets, of projects and of the service."""

from typing import Any

from flask import Response, jsonify

from reactorcide.domain.named_secrets import NamedSecret, SecretRules
from reactorcide.lib.clock import rfc3339
from reactorcide.secrets import change
from reactorcide.web.api.projects.schemas import ProjectPath
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.api.secrets.schemas import (
    SecretListResponse,
    SecretPath,
    SecretRequest,
    SecretResponse,
    SharedSecretPath,
    SharedSecretRequest,
)
from reactorcide.web.auth import caller
from reactorcide.web.services import services

api = resource("secrets", __name__, tag="secrets")


@api.get("/projects/<project_id>/secrets", responses={200: SecretListResponse})
def list_secrets(path: ProjectPath, query: NoQuery) -> Response:
    """List the secrets of a project, without their values; for its owners."""
    return _list(path.project_id)


@api.put("/projects/<project_id>/secrets/<path:name>", responses={200: SecretResponse, 409: ErrorResponse})
def set_secret(path: SecretPath, body: SecretRequest, query: NoQuery) -> Response:
    """Set a secret of a project, and the rules for its use; for its owners."""
    secret = change.set_secret(
        services().jobs, caller(), path.project_id, path.name, body.value, _rules(body)
    )
    return jsonify(_secret_json(secret))


@api.delete("/projects/<project_id>/secrets/<path:name>", responses={204: None})
def delete_secret(path: SecretPath, query: NoQuery) -> tuple[str, int]:
    """Delete a secret of a project; for its owners. Jobs that were created with it still have it."""
    change.delete(services().jobs, caller(), path.project_id, path.name)
    return "", 204


@api.get("/secrets", responses={200: SecretListResponse})
def list_shared_secrets(query: NoQuery) -> Response:
    """List the secrets of the service, without their values; for admins."""
    return _list(None)


@api.put("/secrets/<path:name>", responses={200: SecretResponse, 409: ErrorResponse})
def set_shared_secret(path: SharedSecretPath, body: SharedSecretRequest, query: NoQuery) -> Response:
    """Set a secret of the service, with its projects and the rules for its use; for admins."""
    secret = change.set_secret(
        services().jobs, caller(), None, path.name, body.value, _rules(body), body.projects
    )
    return jsonify(_secret_json(secret))


@api.delete("/secrets/<path:name>", responses={204: None})
def delete_shared_secret(path: SharedSecretPath, query: NoQuery) -> tuple[str, int]:
    """Delete a secret of the service; for admins. Jobs that were created with it still have it."""
    change.delete(services().jobs, caller(), None, path.name)
    return "", 204


def _list(project_id: str | None) -> Response:
    listed = change.listed(services().jobs, caller(), project_id)
    return jsonify({"secrets": [_secret_json(secret) for secret in listed]})


def _rules(body: SecretRequest) -> SecretRules:
    limits = ((name, getattr(body, name)) for name in ("events", "branches", "workflows"))
    return SecretRules(**{name: None if values is None else tuple(values) for name, values in limits})


def _secret_json(secret: NamedSecret) -> dict[str, Any]:
    rules = secret.rules
    return {
        "name": secret.name,
        "project_id": secret.project_id,
        "events": rules.events,
        "branches": rules.branches,
        "workflows": rules.workflows,
        "projects": change.project_names(services().jobs, secret),
        "created_at": rfc3339(secret.created_at_ms),
        "updated_at": rfc3339(secret.updated_at_ms),
        "last_used_at": rfc3339(secret.uses[0].used_at_ms) if secret.uses else None,
        "uses": [
            {
                "project_id": use.project_id,
                "workflow": use.workflow_id,
                "run_id": use.run_id,
                "at": rfc3339(use.used_at_ms),
            }
            for use in secret.uses
        ],
    }
