"""Two workers whose engines have nothing in common, as on two machines."""

import contextlib
import uuid
from collections.abc import Iterator

import docker
import pytest

from tests.support.dockerd import OwnEngine, own_engines
from tests.support.image import Images, build_images
from tests.support.remote import RemoteWorker
from tests.support.runs import over, repository, start
from tests.support.service import Service
from tests.support.waiting import wait_until
from tests.worker.remote.conftest import NewWorker, working
from tests.worker.remote.test_remote import begun, release

TEXT = """
name: CI
on: push
jobs:
  here:
    queue: here
    command: |
      mkdir -p cached; test -e cached/x && echo restored; echo x > cached/x
      echo made > /job/artifacts/made
      echo version=7 >> $REACTORCIDE_OUTPUT
    cache: [{key: [k], paths: [cached]}]
  there:
    queue: there
    needs: [here]
    artifacts_from: [here]
    cache: [{key: [k], paths: [cached]}]
    command: |
      cat /job/needs/here/made $RC_WF_VARS_FILE data.txt
      test -e cached/x && echo restored
"""


@pytest.fixture(scope="module")
def other() -> Iterator[tuple[OwnEngine, docker.APIClient]]:
    """An engine without a network, whose containers go on while it is away."""
    with own_engines() as new_engine:
        engine = new_engine(live_restore=True)
        with contextlib.closing(engine.client()) as client:
            build_images(client)
            yield engine, client


@pytest.fixture(scope="module")
def there(
    hub: Service, tmp_path_factory: pytest.TempPathFactory, other: tuple[OwnEngine, docker.APIClient]
) -> Iterator[RemoteWorker]:
    """A worker on that engine, for the queue ``there``."""
    engine, client = other
    worker = RemoteWorker(
        hub, tmp_path_factory.mktemp("there"), "there", "there", pull="never", source_root=hub.source_root
    )
    worker.environment["DOCKER_HOST"] = engine.url
    with working(worker.start(), client):
        yield worker


def test_results_of_one_engine_are_used_on_the_other(
    hub: Service, there: RemoteWorker, new_worker: NewWorker, engine: docker.APIClient
) -> None:
    here = new_worker(hub, "here", source_root=hub.source_root)
    source = repository(hub.source_root / "two-engines", {"workflows/ci.yaml": TEXT})
    source.commit("data.txt", "from git\n")
    run = over(hub.admin, start(hub.admin, source))
    assert run["status"] == "completed", run["nodes"]
    jobs = {node["name"]: hub.admin.get(f"jobs/{node['job_id']}") for node in run["nodes"]}
    logs = {name: hub.admin.log(job) for name, job in jobs.items()}
    workers = {name: job["worker_id"] for name, job in jobs.items()}
    assert workers == {"here": here.worker_id, "there": there.worker_id}
    assert logs["there"].endswith(b'made\n{"here.version": "7"}from git\nrestored\n'), logs


def test_an_engine_that_is_killed_stops_no_job_of_the_other(
    hub: Service,
    there: RemoteWorker,
    new_worker: NewWorker,
    engine: docker.APIClient,
    other: tuple[OwnEngine, docker.APIClient],
) -> None:
    api, (its_engine, its_client) = hub.admin, other
    here = new_worker(hub, "here")
    jobs = [begun(api, queue_name=queue) for queue in ("here", "there")]
    its_engine.kill()
    waits = api.submit(queue_name="there")
    why = f"jobs/{waits['job_id']}/why"
    wait_until(lambda: "Docker Engine" in api.get(why)["reason"], 30, "the job says why it waits")
    release(engine, here)
    assert api.wait(jobs[0])["status"] == "completed"
    assert api.run(queue_name="here")["status"] == "completed"
    assert api.job(jobs[1])["status"] == "running"
    its_engine.start()
    release(its_client, there)
    for job in jobs:
        ended = api.wait(job, deadline_s=60)
        assert (ended["status"], ended["attempt"]) == ("completed", 1)
    # It may have been prepared before the worker noticed.
    assert api.wait(waits, deadline_s=60)["status"] == "completed"
    assert [api.log(job) for job in jobs] == [b"begun\ndone\n"] * 2


def test_an_image_is_looked_for_on_the_engine_of_the_job(
    hub: Service, there: RemoteWorker, new_worker: NewWorker, engine: docker.APIClient, images: Images
) -> None:
    new_worker(hub, "here")
    image = f"only-here-{uuid.uuid4().hex}:latest"
    engine.tag(images.default, image.partition(":")[0], "latest")
    try:
        found, missing = (hub.admin.run(queue_name=queue, runner_image=image) for queue in ("here", "there"))
    finally:
        engine.remove_image(image)
    assert found["status"] == "completed", found
    assert missing["status"] == "failed"
    assert image in missing["error"], missing
