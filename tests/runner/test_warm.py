"""The pool of warm containers: which are created, which a job gets, and which are thrown away."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import docker
import pytest

from reactorcide.domain.errors import EngineUnavailable, JobFailed
from reactorcide.runner import ContainerSpec
from reactorcide.runner.docker import DockerRunner, container_name, warm
from reactorcide.runner.fake import FakeRunner
from tests.support.image import Images, image_with_script_as_shell
from tests.support.waiting import wait_until

INSTANCE = f"test-{uuid.uuid4()}"


@pytest.fixture
def runner() -> Iterator[DockerRunner]:
    with closing(DockerRunner({}, warm=2)) as runner:
        yield runner
        runner.drop_warm()
        for item in runner.list(INSTANCE):
            runner.remove(item.container_id)
        for container_id in runner.unused_warm(INSTANCE):
            runner.remove(container_id)


def spec_of(image: str, **changes: Any) -> ContainerSpec:
    spec = ContainerSpec(
        instance_id=INSTANCE,
        job_id=str(uuid.uuid4()),
        attempt=1,
        image=image,
        command="true",
        env={"SOME": "variable"},
        working_dir="/job/src",
        cpu_limit=None,
        memory_limit_bytes=None,
        pids_limit=64,
        can_be_warm=True,
    )
    return replace(spec, **changes)


def after_jobs_like(runner: DockerRunner, *specs: ContainerSpec) -> None:
    """Bring the pool to the state after the ends of jobs like these."""
    for spec in specs:
        runner.pool.created(spec, "of an earlier job")
        runner.pool.removed("of an earlier job")
    runner.keep_warm(lambda: True)


def is_warm(runner: DockerRunner, spec: ContainerSpec) -> bool:
    """Create a job's container, and tell whether it was a warm one."""
    before = runner.warm_view().jobs_warm
    container_id = runner.create(spec)
    try:
        return runner.warm_view().jobs_warm > before
    finally:
        runner.remove(container_id)


def test_warm_container_is_used_once_and_named_for_its_job(
    runner: DockerRunner, engine: docker.APIClient, images: Images
) -> None:
    spec = spec_of(images.default)
    after_jobs_like(runner, spec, spec)
    assert runner.warm_view().waiting == 2
    assert not runner.unused_warm(INSTANCE)
    with closing(DockerRunner({})) as other:
        waiting = other.unused_warm(INSTANCE)
    assert len(waiting) == 2
    got = [runner.create(replace(spec, job_id=str(uuid.uuid4()))) for _ in range(3)]
    assert set(got[:2]) == waiting
    assert got[2] not in waiting
    details = engine.inspect_container(got[0])
    assert details["Config"]["Labels"] == {"reactorcide.instance": INSTANCE, "reactorcide.warm": "1"}
    assert not any("SOME" in entry for entry in details["Config"]["Env"])
    (mount,) = details["Mounts"]
    assert engine.inspect_volume(mount["Name"])["Labels"] == details["Config"]["Labels"]
    assert runner.list(INSTANCE) != []
    for container_id in got:
        runner.remove(container_id)
    named = spec_of(images.default)
    after_jobs_like(runner)
    container_id = runner.create(named)
    assert engine.inspect_container(container_id)["Name"] == f"/{container_name(named.job_id, 1)}"
    assert not runner.unused_warm(INSTANCE)
    runner.remove(container_id)


@pytest.mark.parametrize("how", ["killed", "removed", "started again"])
def test_dead_warm_container_is_not_used_and_replaced_with_the_next_job(
    runner: DockerRunner, engine: docker.APIClient, images: Images, how: str
) -> None:
    spec = spec_of(images.default)
    after_jobs_like(runner, spec)
    with closing(DockerRunner({})) as other:
        (container_id,) = other.unused_warm(INSTANCE)
    if how == "removed":
        engine.remove_container(container_id, force=True)
    elif how == "killed":
        engine.kill(container_id)
    else:
        engine.restart(container_id, timeout=0)
    wait_until(lambda: not runner.pool._waiting[0].is_alive(), 10, "its connection ends")
    assert runner.create(spec) != container_id
    runner.keep_warm(lambda: True)
    assert runner.warm_view().waiting == 0
    assert not engine.containers(all=True, filters={"id": container_id})


def test_retagged_image_gets_a_new_container(
    runner: DockerRunner, engine: docker.APIClient, images: Images
) -> None:
    name = f"reactorcide-test-{uuid.uuid4()}"
    try:
        engine.tag(images.default, name)
        spec = spec_of(f"{name}:latest")
        after_jobs_like(runner, spec)
        engine.tag(images.user_1000, name, force=True)
        container_id = runner.create(spec)
        assert runner.owner(container_id) == (1000, 1000)
        runner.remove(container_id)
        runner.drop_warm()
    finally:
        engine.remove_image(name, force=True)


@pytest.mark.parametrize("script", ["exit 3", "exec /bin/busybox yes"], ids=["ends", "floods"])
def test_image_whose_shell_reads_no_command_is_not_retried(
    runner: DockerRunner, engine: docker.APIClient, script: str
) -> None:
    after_jobs_like(runner, spec_of(image_with_script_as_shell(engine, script)))

    def is_forgotten() -> bool:
        runner.keep_warm(lambda: False)
        return not runner.pool._recent

    wait_until(is_forgotten, 20, "its shape is forgotten")
    assert runner.warm_view().waiting == 0


def test_working_directory_that_is_a_link_gets_a_new_container(
    runner: DockerRunner, engine: docker.APIClient, images: Images
) -> None:
    created = engine.create_container(
        images.default, ["sh", "-c", "mkdir -p /job /else; ln -s /else /job/src"]
    )
    engine.start(created)
    engine.wait(created)
    image = engine.commit(created)["Id"]
    engine.remove_container(created)
    try:
        after_jobs_like(runner, spec_of(image))
        assert runner.warm_view().waiting == 0
        runner.drop_warm()
    finally:
        engine.remove_image(image, force=True)


class FakeEngine(FakeRunner):
    """What the pool asks of an engine, without one."""

    def __init__(self) -> None:
        super().__init__(("image",))
        self.ids = {"image": "id of image"}
        self.names: list[str] = []
        self.keeps = True
        self.problem: Exception | None = None

    def keeps_connections(self) -> bool:
        return self.keeps

    def image_id(self, image: str) -> str | None:
        return self.ids.get(image)

    def create_warm(self, shape: ContainerSpec) -> str:
        if self.problem is not None:
            raise self.problem
        return self.create(replace(shape, job_id=str(uuid.uuid4())))

    def image_of(self, container_id: str) -> str:
        return "id of image"

    def is_directory(self, container_id: str, path: str) -> bool:
        return True

    def rename(self, container_id: str, name: str) -> None:
        self.names.append(name)


class Pool:
    """A pool on a fake engine, after a job."""

    def __init__(self, size: int = 2) -> None:
        self.engine = FakeEngine()
        self.pool = warm.WarmPool(size, self.engine)
        self.spec = spec_of("image")

    def after(self, *specs: ContainerSpec) -> int:
        """Return how many wait after jobs like these."""
        for spec in specs:
            self.pool.created(spec, "before")
            self.pool.removed("before")
        self.pool.keep(lambda: True)
        assert len(self.engine.containers) == self.pool.view().waiting
        return self.pool.view().waiting


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "other"},
        {"working_dir": "/job/other"},
        {"cpu_limit": 1.5},
        {"memory_limit_bytes": 64 << 20},
        {"pids_limit": 65},
        {"env": {"UID": "1"}},
        {"host_names": ("db",)},
        {"can_be_warm": False},
        {"instance_id": "other"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_job_with_other_options_gets_a_new_container(changes: dict[str, Any]) -> None:
    pool = Pool()
    assert pool.after(pool.spec) == 1
    assert pool.pool.take(replace(pool.spec, **changes), "name") is None
    assert pool.pool.take(replace(pool.spec, command="else", env={"A": "b"}, job_id="j"), "name") is not None


def test_latest_jobs_decide_which_containers_are_warm() -> None:
    pool = Pool()
    a, b, c = (replace(pool.spec, working_dir=f"/job/{name}") for name in "abc")
    assert pool.after(a) == 1
    assert pool.after(a) == 2
    assert pool.after(b) == 2
    assert {item.shape.working_dir for item in pool.pool._waiting} == {"/job/a", "/job/b"}
    assert pool.after(c) == 2
    assert {item.shape.working_dir for item in pool.pool._waiting} == {"/job/b", "/job/c"}
    # A job that could not have had one changes nothing.
    assert pool.after(replace(a, can_be_warm=False)) == 2
    assert {item.shape.working_dir for item in pool.pool._waiting} == {"/job/b", "/job/c"}


def test_warm_container_is_removed_after_its_maximum_age(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    now = monotonic()
    assert pool.after(pool.spec) == 1
    monkeypatch.setattr(warm, "monotonic", lambda: now + warm._MAX_AGE_S + 5)
    assert pool.pool.take(pool.spec, "name") is None
    # Nor are others created so long after the last job.
    assert pool.after() == 0
    assert pool.after(pool.spec) == 1


def test_no_container_is_created_without_time_memory_or_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    pool.engine.keeps = False
    assert pool.after(pool.spec) == 0
    pool.engine.keeps = True
    pool.pool.keep(lambda: False)
    assert pool.after() == 1
    monkeypatch.setattr(warm, "_MIN_MEMORY_BYTES", 1 << 60)
    assert pool.after(pool.spec) == 1
    assert Pool(size=0).after(pool.spec) == 0


def test_containers_are_created_one_at_a_time() -> None:
    pool = Pool(size=5)
    counts: list[int] = []

    def may_create() -> bool:
        counts.append(len(pool.engine.containers))
        return len(counts) < 3

    pool.after()
    for _ in range(5):
        pool.pool.created(pool.spec, "before")
        pool.pool.removed("before")
    pool.pool.keep(may_create)
    assert counts == [0, 1, 2]


def test_changed_resolver_configuration_gets_a_new_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolvers = tmp_path / "resolv.conf"
    monkeypatch.setattr(warm, "_RESOLVERS", (str(resolvers),))
    pool = Pool()
    assert pool.after(pool.spec) == 1
    resolvers.write_text("nameserver 192.0.2.1\n")
    assert pool.pool.take(pool.spec, "name") is None
    # The one with the old names goes, and another one comes.
    assert pool.after() == 1
    assert pool.pool.take(pool.spec, "name") is not None


def test_failing_engine_is_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    pool.engine.problem = EngineUnavailable("no answer")
    with pytest.raises(EngineUnavailable):
        pool.after(pool.spec)
    assert pool.after() == 0
    pool.engine.problem = None
    assert pool.after() == 0
    now = monotonic()
    monkeypatch.setattr(warm, "monotonic", lambda: now + warm._RETRY_S)
    assert pool.after() == 1


def test_refused_creation_is_not_repeated_before_the_next_job() -> None:
    pool = Pool()
    pool.engine.problem = JobFailed("no such user")
    assert pool.after(pool.spec) == 0
    pool.engine.problem = None
    assert pool.after() == 0
    assert pool.after(pool.spec) == 1


def test_unreachable_engine_when_a_container_is_taken() -> None:
    pool = Pool()
    assert pool.after(pool.spec) == 1

    def away(image: str) -> str:
        raise EngineUnavailable("no answer")

    pool.engine.image_id = away  # type: ignore[method-assign]  # for one call
    with pytest.raises(EngineUnavailable):
        pool.pool.take(pool.spec, "name")
    assert pool.after() == 1
    assert len(pool.engine.containers) == 1


def test_concurrent_jobs_get_different_containers() -> None:
    pool = Pool(size=8)
    assert pool.after(*[pool.spec] * 8) == 8
    with ThreadPoolExecutor(16) as threads:
        got = [threads.submit(pool.pool.take, pool.spec, str(number)) for number in range(16)]
        container_ids = [one.result() for one in got]
    ids = [container_id for container_id in container_ids if container_id is not None]
    assert len(ids) == len(set(ids)) == 8
    view = pool.pool.view()
    assert (view.waiting, view.jobs_warm) == (0, 8)
