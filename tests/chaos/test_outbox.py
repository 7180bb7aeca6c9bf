"""SIGKILL while a commit status is owed or sent: the forge has the last one in the end."""

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import docker
import pytest

from reactorcide.domain.forges import StatusState
from reactorcide.domain.statuses import OwedStatus
from reactorcide.lib.clock import now_ms
from tests.chaos.test_crash_points import armed, crash
from tests.conftest import NewService
from tests.support.http_server import answer_with, serving
from tests.support.service import Service
from tests.support.waiting import wait_until

SHA = "0123456789abcdef0123456789abcdef01234567"


def owe(service: Service, project_id: str, *states: str) -> None:
    """Write what a run of the project would owe, one after the other, each in a transaction."""
    with service.store() as store:
        for state in states:
            status = OwedStatus(
                project_id=project_id,
                sha=SHA,
                context="reactorcide/push/ci",
                state=StatusState(state),
                description=state,
                run_id="0198c0de-0000-7000-8000-000000000001",
                turn=1,
            )
            store.outbox.owe_status(status, now_ms=now_ms())


@pytest.mark.parametrize("point", ["outbox-sending", "outbox-sent", "outbox-marked"])
def test_status_survives_a_kill_at_each_crash_point(
    point: str, new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    states: list[str] = []

    def take(request: BaseHTTPRequestHandler) -> None:
        status = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        states.append(status["state"])
        answer_with(201)(request)

    with serving(take) as port:
        service, marker = armed(new_service, tmp_path, point, allow_address="127.0.0.1")
        project = {
            "name": "acme/site",
            "git_url": "https://git.example/acme/site.git",
            "forge": "gitea",
            "forge_url": f"http://127.0.0.1:{port}",
            "token": "t",
        }
        project_id = service.admin.request("POST", "projects", json=project).json()["project_id"]
        owe(service, project_id, "pending")
        crash(service, marker)
        owe(service, project_id, "failure", "success")

        def is_sent() -> bool:
            (status,) = service.admin.get(f"projects/{project_id}/statuses")["statuses"]
            return bool(status["sent_state"] == "success" and status["owed_since"] is None)

        wait_until(is_sent, 30, f"the last status was sent; the forge has {states}")
    # Nothing is lost or out of order; what was sent and not marked is sent again, or what came after it.
    assert states[-1] == "success"
    assert sorted(states, key=["pending", "failure", "success"].index) == states
