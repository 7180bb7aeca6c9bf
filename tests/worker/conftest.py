"""A worker on a real database, a real embedded Corndogs and a fake engine."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reactorcide.corndogs.client import GrpcCorndogs
from reactorcide.corndogs.server import EmbeddedCorndogs
from reactorcide.domain.accounts import Role, User
from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.jobs import Job
from reactorcide.jobs import JobContext
from reactorcide.jobs.defaults import JobDefaults
from reactorcide.jobs.hints import WorkerHints
from reactorcide.jobs.logs import LogPart, read
from reactorcide.jobs.sealing import Sealing
from reactorcide.jobs.submit import submit
from reactorcide.jobs.upkeep import QueueUpkeep
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.logs.local import LocalLogStore
from reactorcide.metrics import Metrics
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.runner.fake import FakeRunner
from reactorcide.runs import RunContext, evaluation
from reactorcide.runs.evaluate import Evaluator
from reactorcide.sources.roots import SourceRoots
from reactorcide.worker.attempt import Limits
from reactorcide.worker.local import LocalPort, queue_duties
from reactorcide.worker.loop import Worker
from reactorcide.worker.prepare import Preparation
from tests.support.store import AnyDatabase, chosen_database, new_store
from tests.support.waiting import wait_until

USER = User(user_id="u", username="u", email=None, role=Role.USER, is_active=True, created_at_ms=0)


class EvaluatorHere(Evaluator):
    """Evaluates in this process, which is quicker."""

    def _run(self, request: str) -> dict[str, Any]:
        return evaluation.evaluate(json.loads(request))


def run_context(jobs: JobContext, commits: Any) -> RunContext:
    """Return what the use cases of runs need; ``commits`` has the workflow files."""
    return RunContext(
        jobs=jobs, commits=commits, evaluator=EvaluatorHere(), defaults=JobDefaults(image="alpine:latest")
    )


@dataclass
class House:
    """What a worker needs around it; any number of workers, one after the other."""

    context: JobContext
    runner: FakeRunner
    preparation: Preparation
    corndogs: EmbeddedCorndogs
    workers: list[Worker]
    database: AnyDatabase

    def worker(self, **options: Any) -> Worker:
        """Start a worker."""
        limits = Limits(
            prepare_timeout_s=30,
            cancel_grace_s=options.pop("cancel_grace_s", 0.2),
            pids=100,
            artifact_bytes=1 << 20,
            artifacts=100,
            collect_timeout_s=options.pop("collect_timeout_s", 300.0),
            max_disk_bytes=options.pop("max_disk_bytes", 0),
        )
        lease_s = options.pop("lease_s", 60.0)
        port = LocalPort(self.context, lease_s=lease_s, worker_id=options.pop("worker_id", "w"))
        duties = queue_duties(QueueUpkeep(self.context, lease_s=lease_s))
        settings: dict[str, Any] = {"concurrency": 2, "queues": (), "duties": duties}
        worker = Worker(port, self.runner, self.preparation, limits, **settings | options)
        worker.start()
        self.workers.append(worker)
        return worker

    def submit(self, command: str = "exit 0", **fields: Any) -> Job:
        """Submit a job for the fake engine."""
        definition = {
            "name": "n",
            "job_command": command,
            "source_type": "copy",
            "runner_image": "alpine:latest",
        } | fields
        return submit(self.context, USER, JobDefinition(**definition))

    def job(self, job: Job) -> Job:
        """Return the job as it is now."""
        return self.context.store.jobs.get(job.job_id)

    def until(self, job: Job, condition: Callable[[Job], bool], what: str) -> Job:
        """Wait until the job is as it should be."""
        wait_until(lambda: condition(self.job(job)), 20, f"{what}; it is {self.job(job)}")
        return self.job(job)

    def ended(self, job: Job) -> Job:
        """Wait until the job has ended and its container is removed."""
        ended = self.until(job, lambda job: job.is_final, "the job to end")
        wait_until(
            lambda: not any(spec.spec.job_id == job.job_id for spec in list(self.runner.containers.values())),
            20,
            "its container to go",
        )
        return ended

    def log(self, job: Job) -> str:
        """Return the log of the job's last attempt."""
        return b"".join(read(self.context, self.job(job), LogPart()).chunks()).decode()


@pytest.fixture
def house(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[House]:
    """A house whose workers may not get over an error that nobody has thought of."""
    with open_house(tmp_path, "instance") as house:
        yield house
    records = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    assert [record.message for record in records if "failed unexpectedly" in record.message] == []


@contextmanager
def open_house(tmp_path: Path, instance_id: str) -> Iterator[House]:
    """Open the queue, the stores and the fake engine that a worker needs; close all of them at the end."""
    tmp_path.mkdir(exist_ok=True)
    database = chosen_database(tmp_path / "jobs.db")
    corndogs = EmbeddedCorndogs(tmp_path / "corndogs.db")
    corndogs.start()
    store = new_store(database)
    store.instance.id(instance_id)
    store.instance.open_vault()
    preparation = Preparation(SourceRoots([tmp_path], None), tmp_path / "workspaces", {})
    objects = FilesystemObjectStore(tmp_path / "objects")
    logs = LocalLogStore(tmp_path / "logs", objects)
    context = JobContext(
        store=store,
        objects=objects,
        logs=logs,
        notifier=LocalNotifier(),
        metrics=Metrics(),
        corndogs=GrpcCorndogs(corndogs.address),
        rules=preparation.rules,
        hints=WorkerHints(),
        sealing=Sealing(store, logs, objects),
    )
    context.sealing.start()
    house = House(context, FakeRunner(), preparation, corndogs, [], database)
    yield house
    for worker in house.workers:
        worker.stop(10)
    context.sealing.stop(10)
    context.corndogs.close()
    corndogs.stop()
    database.close()
