"""Services, workers, queue, database and bucket, killed at random; every job is accounted for."""

import contextlib
import os
import random
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import docker
import requests

from reactorcide.corndogs.client import GrpcCorndogs
from tests.chaos.killer import COMMAND, LINES, calls, every, open_jobs
from tests.support.client import Client, Job
from tests.support.ports import free_port
from tests.support.postgresql import Cluster
from tests.support.remote import RemoteWorker
from tests.support.s3 import S3Server, running
from tests.support.service import Service, clean_environment, command_line
from tests.support.waiting import wait_until

_CLIENTS = 3
_NOT_STARTED = "the service was killed before the command had started"
_MAX_KILLED_PREPARATIONS = 20


class Queue:
    """A ``reactorcide corndogs`` on a port that stays the same."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self._home = home
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        self._log_path = home / "queue.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it listens."""
        begin = self._log_path.stat().st_size if self._log_path.exists() else 0
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command_line("corndogs", {"port": self._port, "data_dir": self._home / "data"}),
                env=clean_environment(self._home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(
            lambda: b"Corndogs listens on" in self._log_path.read_bytes()[begin:], 30, "the queue listens"
        )

    def kill(self) -> None:
        """End it at once. Safe to repeat."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def waiting_tasks(self) -> int:
        """Return how many tasks are not closed."""
        with closing(GrpcCorndogs(self.address)) as client:
            return sum(client.queue_task_counts().values())


class Database:
    """A PostgreSQL that crashes with all of its processes."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.cluster.stop()
        self.start()

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.cluster.start("max_connections=200")

    def kill(self) -> None:
        """End all of its processes at once."""
        master = self.cluster.process_id
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        for pid in (master, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.cluster.wait()


class Bucket:
    """An S3 server that stops answering, and later goes on: its objects are in its memory."""

    def __init__(self, server: S3Server) -> None:
        self._server = server

    def kill(self) -> None:
        """Stop answering."""
        os.kill(self._server.process_id, signal.SIGSTOP)

    def start(self) -> None:
        """Go on."""
        os.kill(self._server.process_id, signal.SIGCONT)


@dataclass(frozen=True)
class Machines:
    """All that is killed."""

    database: Database
    bucket: Bucket
    queue: Queue
    services: list[Service]
    workers: list[RemoteWorker]

    def victims(self) -> list[tuple[str, Callable[[], None], Callable[[], object]]]:
        """Return name, killing and starting of each, in the order in which they are to be started."""
        return [
            ("postgresql", self.database.kill, self.database.start),
            ("s3", self.bucket.kill, self.bucket.start),
            ("corndogs", self.queue.kill, self.queue.start),
            *(("service", service.kill, service.start) for service in self.services),
            # It waits for its service by itself.
            *(("worker", worker.kill, worker.launch) for worker in self.workers),
        ]


@dataclass
class Request:
    """A job that a client asked for."""

    name: str
    exit_code: int
    retries: int
    is_accepted: bool = False
    """``False`` where there was no answer: then there may be a job or not."""
    is_cancelled: bool | None = False
    """Whether a cancel was in time; ``None`` where no answer to it was ever received."""


@dataclass
class Tally:
    """What was done."""

    kills: Counter[str] = field(default_factory=Counter)
    requests: list[Request] = field(default_factory=list)

    def __str__(self) -> str:
        accepted = sum(one.is_accepted for one in self.requests)
        cancelled = sum(one.is_cancelled is True for one in self.requests)
        return (
            f"{accepted} jobs accepted, {len(self.requests) - accepted} unanswered, {cancelled} cancelled; "
            f"killed: {dict(self.kills)}"
        )


@contextmanager
def machines(
    home: Path, image: str, *, services: int, workers: int, concurrency: int = 0
) -> Iterator[Machines]:
    """Start everything; at the end all of it is ended. ``concurrency`` is how many jobs each service runs."""
    home.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        database = Database()
        stack.callback(database.cluster.remove)
        (home / "s3").mkdir()
        server = stack.enter_context(running(home / "s3"))
        queue = Queue(home / "queue")
        stack.callback(queue.kill)
        queue.start()
        environment = server.environment() | {"REACTORCIDE_DATABASE": database.cluster.new_url()}
        objects = f"s3://{server.new_bucket()}/ci"
        running_services: list[Service] = []
        for number in range(services):
            service = Service(
                home / f"service-{number}",
                image,
                environment,
                port=free_port(),
                concurrency=concurrency,
                cancel_grace=1,
                lease=3,
                objects=objects,
                corndogs_address=queue.address,
            )
            stack.callback(service.kill)
            if number:
                service.join(running_services[0])
            running_services.append(service.start())
        running_workers: list[RemoteWorker] = []
        for number in range(workers):
            service = running_services[number % services]
            worker = RemoteWorker(service, home / f"worker-{number}", f"worker-{number}")
            stack.callback(worker.kill)
            running_workers.append(worker.start())
        yield Machines(database, Bucket(server), queue, running_services, running_workers)


def survive(
    parts: Machines, engine: docker.APIClient, *, duration_s: float, jobs: int, seed: int, settle_s: float
) -> Tally:
    """Submit jobs, cancel some and kill for a while; then see that none is lost, doubled or hangs."""
    tally = Tally()
    with calls() as (called, port):
        _rampage(parts, tally, duration_s, jobs, seed, {"CALLS_PORT": str(port)})
        print(tally)  # the figures
        _account_for(parts, engine, tally, called, settle_s)
    return tally


def _rampage(
    parts: Machines, tally: Tally, duration_s: float, jobs: int, seed: int, variables: dict[str, str]
) -> None:
    over = threading.Event()

    def submit(number: int) -> None:
        chance = random.Random(seed + number)  # noqa: S311  # to be repeated, not to be secret
        clients = [service.client(service.admin.token or "") for service in parts.services]
        for count in range(number, jobs, _CLIENTS):
            # The interval is the load.
            over.wait(chance.uniform(0.0, 2 * _CLIENTS * duration_s / jobs))
            kind = chance.choice(((0, 0), (0, 0), (3, 0), (3, 1)))
            one = Request(f"{number}-{count}", *kind)
            tally.requests.append(one)
            _submit(chance, clients, one, variables)

    with ThreadPoolExecutor(_CLIENTS) as pool:
        clients = [pool.submit(submit, number) for number in range(_CLIENTS)]
        try:
            _kill(parts, tally, random.Random(seed), duration_s)  # noqa: S311
        finally:
            over.set()
    for client in clients:
        client.result()


def _kill(parts: Machines, tally: Tally, chance: random.Random, duration_s: float) -> None:
    pause = threading.Event()
    ends_at = monotonic() + duration_s
    victims = parts.victims()
    while monotonic() < ends_at:
        # The intervals are the randomness of it, and wait for nothing.
        pause.wait(chance.uniform(0.0, chance.choice((1.0, 5.0, 8.0))))
        chosen = sorted(chance.sample(range(len(victims)), chance.choice((1, 1, 1, 2, 3))))
        for number in chosen:
            name, kill, _ = victims[number]
            kill()
            tally.kills[name] += 1
        pause.wait(chance.uniform(0.0, chance.choice((0.0, 1.0, 4.0))))
        for number in chosen:
            victims[number][2]()


def _submit(chance: random.Random, clients: list[Client], one: Request, variables: dict[str, str]) -> None:
    fields = {"name": one.name, "retries": one.retries, "job_env_vars": variables}
    try:
        response = chance.choice(clients).post_job(job_command=f"{COMMAND}{one.exit_code}", **fields)
    except requests.RequestException:
        return
    # Unavailable: its database is away.
    assert response.status_code in (201, 503), response.text
    one.is_accepted = response.status_code == 201
    if one.is_accepted and chance.random() < 0.1:
        threading.Event().wait(chance.uniform(0.0, 3.0))
        try:
            path = f"jobs/{response.json()['job_id']}/cancel"
            response = chance.choice(clients).request("POST", path)
        except requests.RequestException:
            one.is_cancelled = None
            return
        assert response.status_code in (200, 409, 503), response.text
        one.is_cancelled = None if response.status_code == 503 else response.status_code == 200


def _account_for(
    parts: Machines, engine: docker.APIClient, tally: Tally, called: Counter[str], settle_s: float
) -> None:
    api = parts.services[0].admin
    wait_until(lambda: open_jobs(api) == 0, settle_s, "every job is over")
    wait_until(
        lambda: not any(worker.containers(engine) for worker in parts.workers), 60, "the containers are gone"
    )
    jobs = every(api, "jobs")
    jobs_by_name = {job["name"]: job for job in jobs}
    assert len(jobs_by_name) == len(jobs), "one request made two of them"
    requested = {one.name: one for one in tally.requests}
    assert {one.name for one in tally.requests if one.is_accepted} <= set(jobs_by_name) <= set(requested)
    problems = [problem for job in jobs for problem in _problems(api, job, requested[job["name"]], called)]
    assert not problems, "\n".join(problems)
    # A submitter that was killed may have left a task, which the next claim of its queue closes.
    api.wait(api.submit("true"), deadline_s=60)
    wait_until(lambda: parts.queue.waiting_tasks() == 0, 60, "every task is closed")


def _problems(api: Client, job: Job, one: Request, called: Counter[str]) -> Iterator[str]:
    """Yield what is wrong with a job."""
    attempts = api.get(f"jobs/{job['job_id']}/attempts")["attempts"]
    started = [item for item in attempts if item["started_at"] is not None]
    what = f"{job['job_id']} ({job['status']}, {job['error']}; {attempts})"
    if any(item["completed_at"] is None for item in attempts):
        yield f"an attempt is open: {what}"
    if len(started) > 1 + one.retries or called[job["job_id"]] > 1 + one.retries:
        yield f"the command was run {called[job['job_id']]} times: {what}"
    is_cancelled = job["status"] == "cancelled"
    if is_cancelled and one.is_cancelled is False:
        yield f"nobody has cancelled it: {what}"
    for item in started:
        yield from _problems_of_log(api, job, item["attempt"], is_whole=not is_cancelled)
    if is_cancelled:
        return
    if one.is_cancelled is True:
        yield f"its cancel was answered with 200: {what}"
    if not started and len(attempts) <= _MAX_KILLED_PREPARATIONS:
        yield f"it has never run: {what}"
    elif not started:
        if (job["status"], job["error"]) != ("failed", _NOT_STARTED):
            yield f"it has not run, and ended otherwise: {what}"
    else:
        end = ("failed", 3, "exit code 3") if one.exit_code else ("completed", 0, None)
        if (job["status"], job["exit_code"], job["error"]) != end:
            yield f"it ended otherwise than its command: {what}"
        if not len(started) == called[job["job_id"]] == 1 + one.retries:
            yield f"the command was run {called[job['job_id']]} times: {what}"
        if api.artifact_paths(job) != ["kept"]:
            yield f"its artifact is not there: {what}"


def _problems_of_log(api: Client, job: Job, attempt: int, *, is_whole: bool) -> Iterator[str]:
    lines = api.log(job, attempt=attempt).decode().splitlines()
    for stream in ("out", "err"):
        own = [line for line in lines if line.startswith(f"{stream} ")]
        if own != [f"{stream} {number}" for number in range(LINES if is_whole else len(own))]:
            yield f"the log of attempt {attempt} of {job['job_id']} has {len(own)} lines of {stream}: {own}"
