"""A real ``reactorcide serve`` in a separate process group."""

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker

from reactorcide.accounts import AccountContext, tokens, users
from reactorcide.domain.accounts import Role
from reactorcide.domain.audit import operator
from reactorcide.store import Store
from reactorcide.store.database import Database
from reactorcide.store.postgresql import PostgreSQLDatabase
from reactorcide.store.vault import Vault
from tests.support.client import Client, Job
from tests.support.launch import CHECKOUT, LAUNCHER, Process, launch
from tests.support.waiting import wait_until

PROGRAM = CHECKOUT / "reactorcide.py"

_LISTENS = re.compile(r"Reactorcide listens on (https?://\S+)")
_START_S = 20
_STOP_S = 10


def command_line(
    command: str, options: Mapping[str, object], program: Sequence[str] | None = None
) -> list[str]:
    """Return the arguments that run one of the program's commands: from this checkout by default."""
    arguments = [*(program or LAUNCHER), command]
    for name, value in options.items():
        arguments.append(f"--{name.replace('_', '-')}")
        # A switch has no value.
        arguments += [] if value is None else [str(value)]
    return arguments


def clean_environment(home: Path, **extra: str) -> dict[str, str]:
    """Return an environment in which nothing of the caller's plays a part but where the engine is."""
    passed_on = {name: os.environ[name] for name in ("PATH", "DOCKER_HOST") if name in os.environ}
    return passed_on | {"HOME": str(home)} | extra


class Service:
    """A service with a data directory and a source root below ``home``.

    ``start``, then ``stop`` or ``kill``, any number of times over; ``options`` are those of ``serve``.
    """

    program: Sequence[str] | None = None
    """The program and its first arguments, if it is not that of this checkout."""

    def __init__(
        self, home: Path, image: str, environment: Mapping[str, str] | None = None, **options: object
    ) -> None:
        self.data_dir = Path(str(options.get("data_dir", home / "data")))
        self.source_root = Path(str(options.get("source_root", home / "sources")))
        self.log_path = home / "service.log"
        for directory in (home, self.source_root):
            directory.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.environment = dict(environment or {})
        self.options: dict[str, object] = {
            "port": 0,
            "data_dir": self.data_dir,
            "source_root": self.source_root,
            "default_image": image,
            # Filling the pool takes time from the other tests. Those of the pool turn it on, and to run all
            # with it there is this variable.
            "warm": os.environ.get("REACTORCIDE_TEST_WARM", "0"),
            # Tests try bad tokens by the dozen, and all from one address.
            "bad_tokens": 0,
        } | options
        self._process: Process | None = None
        self._clients: list[Client] = []
        self.admin = self._client(None)

    def join(self, first: "Service") -> None:
        """Get the key and the admin of another service on the same database, before the first start."""
        self.data_dir.mkdir(mode=0o700)
        for name in ("secret-key", "admin-token"):
            shutil.copy2(first.data_dir / name, self.data_dir)

    # --- its life ------------------------------------------------------------------------------

    def start(self) -> "Service":
        """Start the service and return it when it listens."""
        begin = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = launch(
                command_line("serve", self.options, self.program),
                clean_environment(self.home, **self.environment),
                self.home,
                output=log.fileno(),
            )
        process = self._process

        def address() -> re.Match[str] | None:
            return _LISTENS.search(self.log_path.read_bytes()[begin:].decode(errors="replace"))

        try:
            wait_until(
                lambda: address() is not None or process.poll() is not None, _START_S, "the service listens"
            )
            match = address()
            assert match is not None, f"the service ended with {process.poll()}: {self.log_text()}"
        except BaseException:
            self.kill()
            raise
        for client in self._clients:
            client.base_url = match[1]
        # Another service on the same database has created the admin, and the test knows the token.
        if (self.data_dir / "admin-token").exists():
            self.admin.token = (self.data_dir / "admin-token").read_text().strip()
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM, *, whole_group: bool = False) -> None:
        """Stop the service with a signal; it must end in time and with exit code 0. Safe to repeat."""
        process = self._process
        if process is None:
            return
        self.signal(number, whole_group=whole_group)
        exit_code = self.wait()
        assert exit_code == 0, self.log_text()

    def signal(self, number: signal.Signals, *, whole_group: bool = False) -> None:
        """Send the service a signal."""
        assert self._process is not None
        # A server waits a while for further requests on connections that are kept alive.
        self.close()
        if whole_group:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)

    def wait(self) -> int:
        """Return its exit code when it has ended, which must be in time."""
        assert self._process is not None
        self.close()
        try:
            return self._process.wait(_STOP_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """End every process of the service at once. Safe to repeat."""
        process = self._process
        if process is None:
            return
        self._process = None
        # Mostly all of them have ended by themselves.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        """Close the clients' idle connections; each opens another where it needs one."""
        for client in self._clients:
            client.close()

    # --- what it shows -------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return self.admin.base_url

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.base_url.rpartition(":")[2])

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither stopped nor killed since."""
        return self._process is not None

    @property
    def process_id(self) -> int:
        """The process that was started: the master."""
        assert self._process is not None
        return self._process.pid

    def log_text(self) -> str:
        """Return what the service itself has logged."""
        return self.log_path.read_text(errors="replace")

    def object_keys(self, prefix: str) -> list[str]:
        """Return the keys of its objects below ``prefix``, which ends with a slash, wherever they are."""
        url = self.options.get("objects")
        if url is not None:
            # Imported late: most tests do without boto3.
            from tests.support.s3 import bucket_keys

            return bucket_keys(self.environment, str(url), prefix)
        paths = (self.data_dir / "objects" / prefix).rglob("*")
        return [str(path.relative_to(self.data_dir / "objects")) for path in paths if path.is_file()]

    def object_path(self, key: str) -> Path:
        """Return the file that holds an object."""
        return self.data_dir / "objects" / key

    def pids(self) -> set[int]:
        """Return the processes of the service: all of its process group."""
        assert self._process is not None
        group, pids = self._process.pid, set()
        for entry in Path("/proc").iterdir():
            # It may have ended by now.
            with contextlib.suppress(ProcessLookupError, ValueError):
                if os.getpgid(int(entry.name)) == group:
                    pids.add(int(entry.name))
        return pids

    def anonymous(self) -> Client:
        """Return a client without a token."""
        return self._client(None)

    def client(self, token: str) -> Client:
        """Return a client with another token."""
        return self._client(token)

    def add_user(self, name: str, role: Role = Role.USER) -> Client:
        """Make a user, as the operator can: directly in the database."""
        with self.store() as store:
            accounts = AccountContext(store)
            user = users.create(accounts, name, role=role, by=operator())
            _, value = tokens.create(accounts, user, "test", by=operator())
        return self.client(value)

    @contextmanager
    def database(self) -> Iterator[Database | PostgreSQLDatabase]:
        """Open its job database, of whichever kind, on connections of the test's own."""
        url = self.environment.get("REACTORCIDE_DATABASE")
        database = Database(self.data_dir / "reactorcide.db") if url is None else PostgreSQLDatabase(url)
        with closing(database):
            yield database

    @contextmanager
    def store(self) -> Iterator[Store]:
        """Open the store on its job database, with its key."""
        with self.database() as database:
            yield Store(database, Vault.beside(self.data_dir / "reactorcide.db"))

    def _client(self, token: str | None) -> Client:
        address = self._clients[0].base_url if self._clients else ""
        client = Client(address, token, certificate=self.options.get("tls_cert"))
        self._clients.append(client)
        return client

    def until_ready(self) -> dict[str, Any]:
        """Return what ``/ready`` answers when it is a 200: the first checks take a while."""
        client = self.anonymous()
        wait_until(lambda: client.request("GET", "ready").status_code == 200, 20, "the service is ready")
        return dict(client.get("ready"))

    def until_sealed(self) -> None:
        """Return when the logs of all ended jobs are in the object store, and no job runs."""
        logs = self.data_dir / "logs"
        rows = "SELECT COUNT(*) FROM log_file"
        with self.database() as database, database.read() as db:
            wait_until(
                lambda: not any(logs.glob("*.log*")) and db.execute_sql(rows).fetchall() == [(0,)],
                20,
                "the logs are in the object store",
            )

    # --- its containers ------------------------------------------------------------------------

    def containers(self, engine: docker.APIClient, job: Job | None = None) -> list[dict[str, Any]]:
        """Return the containers of this service's jobs, or of one of them, in whatever state."""
        return [
            item
            for item in self._labelled(engine)
            if not _is_warm(item) and (job is None or _is_of(item, job))
        ]

    def warm_containers(self, engine: docker.APIClient) -> list[dict[str, Any]]:
        """Return the containers that wait for a job."""
        return [item for item in self._labelled(engine) if _is_warm(item)]

    def wait_until_warm(self, count: int) -> None:
        """Return when so many containers wait for jobs."""
        wait_until(
            lambda: self.admin.get("workers")["workers"][0]["warm_containers"] == count,
            60,
            f"{count} containers wait for jobs",
        )

    def _labelled(self, engine: docker.APIClient) -> list[dict[str, Any]]:
        labels = [f"reactorcide.instance={self._label()}"]
        containers: list[dict[str, Any]] = engine.containers(all=True, filters={"label": labels})
        return containers

    def _label(self) -> str:
        """Return what its containers are labelled with: one of several services has its own."""
        own = self.data_dir / "service-id"
        instance_id = self._instance_id()
        return f"{instance_id}.embedded-{own.read_text().strip()}" if own.exists() else instance_id

    def _instance_id(self) -> str:
        with self.database() as database, database.read() as db:
            return str(db.execute_sql("SELECT instance_id FROM instance").fetchone()[0])


def _is_of(container: dict[str, Any], job: Job) -> bool:
    # One that was warm has no label of its job, but its name.
    is_named = any(name.startswith(f"/reactorcide-{job['job_id']}-") for name in container["Names"])
    return is_named or container["Labels"].get("reactorcide.job") == job["job_id"]


def _is_warm(container: dict[str, Any]) -> bool:
    return any(name.startswith("/reactorcide-warm-") for name in container["Names"])


def peak_kib(service: Service) -> int:
    """Return the most memory that a process of the service has had, which it forgets at every call."""
    peak = 0
    for pid in service.pids():
        process = Path("/proc") / str(pid)
        (line,) = (line for line in (process / "status").read_text().splitlines() if "VmHWM" in line)
        peak = max(peak, int(line.split()[1]))
        (process / "clear_refs").write_text("5")
    return peak
