"""SIGKILL while a delivery is received and processed: each starts its runs, and each of them once."""

import contextlib
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from reactorcide import crashpoints
from tests.chaos.test_crash_points import crash, keeps_orphans
from tests.conftest import NewService
from tests.integration.test_deliveries import add_project, deliveries
from tests.support.dialects import Delivery
from tests.support.forge import Forge, ForgeRepository, running_forge
from tests.support.runs import over
from tests.support.service import Service
from tests.support.waiting import wait_until

CI = "name: CI\non: push\njobs: {a: {command: 'true', checkout: false}}\n"
DELIVERIES = 20
"""How many come while the service is killed; ``make soak`` has a thousand."""
_ALLOWED = "127.0.0.1/32"


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[Forge]:
    with running_forge(tmp_path / "forge", "github") as running:
        yield running


@pytest.mark.parametrize(
    "point",
    ["delivery-body-stored", "delivery-stored", "delivery-runs-written", "run-committed", "submit-task-made"],
)
def test_delivery_survives_a_kill_at_each_crash_point(
    point: str, new_service: NewService, forge: Forge, tmp_path: Path
) -> None:
    marker = tmp_path / "armed"
    environment = {crashpoints.VARIABLE: f"{point}={marker}"}
    service = new_service(environment, lease=3, allow_address=_ALLOWED)
    repository = forge.repository("acme/site", {"workflows/ci.yaml": CI})
    project = add_project(service, forge, repository)
    sha = repository.commit("src", "1")
    sent = repository.push()
    marker.touch()
    is_answered = False
    with contextlib.suppress(requests.ConnectionError):
        is_answered = repository.deliver(sent, delivery_id="one")[0].status_code == 202
    crash(service, marker)
    move_hook(service, repository)
    if not is_answered:
        # Whoever looks at the forge's list of deliveries sends it again, under the same id.
        assert repository.deliver(sent, delivery_id="one")[0].status_code == 202
    (delivery,) = deliveries(service.admin, project)
    (run_id,) = delivery["run_ids"]
    run = over(service.admin, {"run_id": run_id})
    assert (run["status"], run["sha"], delivery["outcome"]) == ("completed", sha, "run started")
    assert service.admin.get("runs")["total"] == 1
    bodies = len(service.object_keys("deliveries/"))
    assert bodies == 1 or (keeps_orphans(service) and bodies == 2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_each_delivery_starts_its_run_under_random_kills(new_service: NewService, forge: Forge) -> None:
    seed = random.randrange(1 << 32)  # noqa: S311  # to be repeated, not to be secret
    print(f"seed {seed}")  # shown where the test fails
    service = new_service(lease=3, concurrency=3, allow_address=_ALLOWED)
    survive(service, forge, DELIVERIES, seed)


def survive(service: Service, forge: Forge, count: int, seed: int) -> None:
    """Send so many deliveries while the service is killed at random; then account for each."""
    chance = random.Random(seed)  # noqa: S311  # as above
    repository = forge.repository("acme/site", {"workflows/ci.yaml": CI})
    project = add_project(service, forge, repository)
    before = repository.head()
    sent: list[tuple[str, Delivery]] = []
    for number in range(count):
        repository.work.git("commit", "--quiet", "--allow-empty", "--message", f"number {number}")
        after = repository.head()
        sent.append((after, forge.dialect.push(repository.repo, "refs/heads/main", before, after)))
        before = after
    repository.push()
    over_now, kills = threading.Event(), 0

    def deliver(number: int) -> None:
        pause = random.Random(seed + number)  # noqa: S311  # as above
        # Sent again until it is answered, as somebody does who looks at the forge's list; some once more.
        for _ in range(pause.choice((1, 1, 2))):
            while not over_now.wait(pause.uniform(0.0, 0.3)):
                with contextlib.suppress(requests.RequestException):
                    answers = repository.deliver([sent[number][1]], delivery_id=f"id-{number}")
                    if answers[0].status_code == 202:
                        break

    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(deliver, number) for number in range(count)]
        try:
            # Twice at least: the last ones are still processed when all have been answered.
            while kills < 2 or not all(client.done() for client in clients):
                # The interval is the randomness of it, and waits for nothing.
                over_now.wait(chance.uniform(0.2, 2.0))
                service.kill()
                kills += 1
                service.start()
                move_hook(service, repository)
        except BaseException:
            over_now.set()
            raise
    for client in clients:
        client.result()
    print(f"{count} deliveries, {kills} kills")
    account_for(service, project, forge, [sha for sha, _ in sent])


def account_for(service: Service, project: dict[str, Any], forge: Forge, shas: list[str]) -> None:
    """See that each commit has had one delivery, one run that has completed, and its final status."""
    api = service.admin
    received = deliveries(api, project, 60 + 10 * len(shas))
    assert len(received) == len(shas)
    assert {delivery["outcome"] for delivery in received} == {"run started"}
    runs = [over(api, {"run_id": run_id}) for delivery in received for run_id in delivery["run_ids"]]
    assert sorted(run["sha"] for run in runs) == sorted(shas)
    assert {run["status"] for run in runs} == {"completed"}
    assert api.get("runs", project=project["project_id"], limit=1)["total"] == len(shas)
    assert sorted(run["number"] for run in runs) == list(range(1, len(shas) + 1))

    def unfinished() -> list[str]:
        return [sha for sha in shas if forge.final(sha) != {"reactorcide/push/ci": "success"}]

    wait_until(lambda: not unfinished(), 60 + len(shas), "each commit has its final status")


def move_hook(service: Service, repository: ForgeRepository) -> None:
    """Send deliveries to where the service listens now."""
    assert repository.hook is not None
    url, secret = repository.hook
    repository.hook = f"{service.base_url}/api/{url.partition('/api/')[2]}", secret
