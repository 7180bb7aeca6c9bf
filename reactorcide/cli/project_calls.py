"""The API calls for projects and their resources."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from reactorcide.cli.session import Json, Session
from reactorcide.domain.errors import NotFound


class ProjectCalls(Session):
    """One method for each call about projects, their secrets, schedules, deliveries and webhooks."""

    def projects(self, filters: Mapping[str, Any]) -> Json:
        """Return a page of projects; filters that are ``None`` are left out."""
        return self._json("GET", "/projects", params=filters)

    def project(self, name: str) -> Json:
        """Return the project with a name; raises ``NotFound``."""
        projects = self.projects({"name": name})["projects"]
        if not projects:
            raise NotFound(f"there is no project {name!r}; 'reactorcide project list' shows them")
        return self._json("GET", f"/projects/{projects[0]['project_id']}")

    def create_project(self, body: Json) -> Json:
        """Create a project and return it."""
        return self._json("POST", "/projects", json=body)

    def change_project(self, project_id: str, body: Json) -> Json:
        """Change a project and return it. Safe to repeat."""
        return self._json("PATCH", f"/projects/{project_id}", json=body)

    def check_project(self, project_id: str) -> Json:
        """Check whether a project can fetch its repository and set commit statuses; return the problems."""
        return self._json("POST", f"/projects/{project_id}/check")

    def renew_webhook_secret(self, project_id: str) -> Json:
        """Create a new secret for the webhook of a project, and return it with the webhook's address."""
        return self._json("POST", f"/projects/{project_id}/webhook-secret")

    def forget_webhook_secret(self, project_id: str) -> None:
        """Revoke the webhook secret from before the last renewal. Safe to repeat."""
        self._send("DELETE", f"/projects/{project_id}/webhook-secret").close()

    def deliveries(self, project_id: str, filters: Mapping[str, Any]) -> Json:
        """Return a page of the deliveries of a project; filters that are ``None`` are left out."""
        return self._json("GET", f"/projects/{project_id}/deliveries", params=filters)

    def delivery(self, project_id: str, delivery_id: str) -> Json:
        """Return a delivery with its headers and body."""
        return self._json("GET", f"/projects/{project_id}/deliveries/{quote(delivery_id, safe='')}")

    def redeliver(self, project_id: str, delivery_id: str) -> Json:
        """Have a delivery processed again, and return it."""
        path = f"/projects/{project_id}/deliveries/{quote(delivery_id, safe='')}/redeliver"
        return self._json("POST", path)

    def renew_deploy_key(self, project_id: str) -> Json:
        """Create a new SSH key for a project, and return its public half."""
        return self._json("POST", f"/projects/{project_id}/deploy-key")

    def remove_deploy_key(self, project_id: str) -> None:
        """Remove the SSH key of a project. Safe to repeat."""
        self._send("DELETE", f"/projects/{project_id}/deploy-key").close()

    def delete_project(self, project_id: str) -> None:
        """Remove a project."""
        self._send("DELETE", f"/projects/{project_id}").close()

    def create_webhook(self, body: Json) -> Json:
        """Create a webhook, and return it with its secret."""
        return self._json("POST", "/webhooks", json=body)

    def webhooks(self) -> Json:
        """Return the webhooks of the user, all for an admin."""
        return self._json("GET", "/webhooks")

    def change_webhook(self, webhook_id: str, body: Json) -> Json:
        """Change a webhook and return it. Safe to repeat."""
        return self._json("PATCH", f"/webhooks/{webhook_id}", json=body)

    def webhook_messages(self, webhook_id: str, query: Json) -> Json:
        """Return a page of the messages of a webhook."""
        return self._json("GET", f"/webhooks/{webhook_id}/messages", params=query)

    def renew_secret_of_webhook(self, webhook_id: str) -> Json:
        """Create a new secret for a webhook and return it."""
        return self._json("POST", f"/webhooks/{webhook_id}/secret")

    def redeliver_message(self, webhook_id: str, message_id: str) -> Json:
        """Send a message of a webhook again, and return it."""
        return self._json("POST", f"/webhooks/{webhook_id}/messages/{message_id}/redeliver")

    def delete_webhook(self, webhook_id: str) -> None:
        """Remove a webhook."""
        self._send("DELETE", f"/webhooks/{webhook_id}").close()

    def set_member(self, project_id: str, username: str, role: str) -> Json:
        """Give a user a role in a project and return the member. Safe to repeat."""
        body = {"username": username, "role": role}
        return self._json("PUT", f"/projects/{project_id}/members", json=body)

    def remove_member(self, project_id: str, user_id: str) -> None:
        """Remove a user from a project. Safe to repeat."""
        self._send("DELETE", f"/projects/{project_id}/members/{user_id}").close()

    def secrets(self, project_id: str | None) -> list[Json]:
        """Return the secrets of a project, or of the service, without their values."""
        secrets: list[Json] = self._json("GET", _secrets(project_id))["secrets"]
        return secrets

    def set_secret(self, project_id: str | None, name: str, body: Json) -> Json:
        """Set a secret of a project, or of the service, and return it. Safe to repeat."""
        return self._json("PUT", f"{_secrets(project_id)}/{quote(name)}", json=body)

    def delete_secret(self, project_id: str | None, name: str) -> None:
        """Delete a secret of a project, or of the service."""
        self._send("DELETE", f"{_secrets(project_id)}/{quote(name)}").close()

    def schedules(self, project_id: str) -> list[Json]:
        """Return the schedules of a project."""
        schedules: list[Json] = self._json("GET", f"/projects/{project_id}/schedules")["schedules"]
        return schedules

    def schedule(self, project_id: str, schedule_id: str) -> Json:
        """Return a schedule, with its next due times and the results of the last ones."""
        return self._json("GET", f"/projects/{project_id}/schedules/{schedule_id}")

    def create_schedule(self, project_id: str, body: Json) -> Json:
        """Create a schedule and return it."""
        return self._json("POST", f"/projects/{project_id}/schedules", json=body)

    def change_schedule(self, project_id: str, schedule_id: str, body: Json) -> Json:
        """Change a schedule and return it. Safe to repeat."""
        return self._json("PATCH", f"/projects/{project_id}/schedules/{schedule_id}", json=body)

    def delete_schedule(self, project_id: str, schedule_id: str) -> None:
        """Remove a schedule."""
        self._send("DELETE", f"/projects/{project_id}/schedules/{schedule_id}").close()

    def run_schedule(self, project_id: str, schedule_id: str) -> Json:
        """Start the runs of a schedule now, and return it."""
        return self._json("POST", f"/projects/{project_id}/schedules/{schedule_id}/run")


def _secrets(project_id: str | None) -> str:
    return "/secrets" if project_id is None else f"/projects/{project_id}/secrets"
