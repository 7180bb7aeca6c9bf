"""A PostgreSQL server of the tests' own, with a database for each test."""

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
from functools import cache
from glob import glob
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reactorcide.store.models import ALL_MODELS
from reactorcide.store.postgresql import PostgreSQLDatabase
from tests.support.waiting import wait_until

_NUMBERS = count(1)
DURABLE = ("fsync=on", "full_page_writes=on")
"""Options for ``Cluster.start``: without them a crash of the machine loses what was written."""
_OPTIONS = (
    "fsync=off",
    "full_page_writes=off",
    "max_connections=60",
    "shared_buffers=32MB",
    "listen_addresses=",
)


_EMPTY = "; ".join(
    (
        # Without triggers: the audit's refuse this.
        "SET session_replication_role = replica",
        *(f'DELETE FROM "{model._meta.table_name}"' for model in ALL_MODELS),  # noqa: S608  # names of ours
        "ALTER SEQUENCE job_event_id_seq RESTART",
        "ALTER SEQUENCE audit_audit_id_seq RESTART",
    )
)
_FREE: list[str] = []
"""URLs of databases that no test uses: one is emptied sooner than made."""


class PostgreSQL(PostgreSQLDatabase):
    """A database of a test; its key is where that of a file in a directory would be."""

    def __init__(self, url: str, path: Path) -> None:
        super().__init__(url)
        self.url = url
        self.path = path
        self._is_given_back = False

    def waiting_writers(self) -> int:
        """Return how many services wait for another one's transaction."""
        waiting = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        with psycopg.connect(self.url) as connection:
            (count,) = connection.execute(waiting).fetchall()[0]
        return int(count)

    def close(self) -> None:
        """Close the connections, and leave the database for another test; safe to repeat."""
        super().close()
        if not self._is_given_back:
            self._is_given_back = True
            _FREE.append(self.url)


class Cluster:
    """A server with a unix socket in a directory of its own, run by a user who is not root."""

    def __init__(self, *options: str) -> None:
        self.programs = programs()
        # In the system's temporary directory: a socket's path is short, and the user can get there.
        self.directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # as said
        self._user = None if os.geteuid() else pwd.getpwnam("nobody")
        if self._user:
            os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)
        data = str(self.directory / "data")
        init = ["initdb", "-D", data, "-U", "reactorcide", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        subprocess.run(self._command(init), check=True, stdout=subprocess.DEVNULL, **self._as_user())
        self.start(*options)

    def _command(self, command: list[str]) -> list[str]:
        return [f"{self.programs}/{command[0]}", *command[1:]]

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {"cwd": self.directory}
        ids: dict[str, Any] = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        return {"cwd": self.directory, **ids}

    def start(self, *options: str) -> None:
        """Start the server, and wait until it answers."""
        command = ["postgres", "-D", str(self.directory / "data"), "-k", str(self.directory)]
        for option in (*_OPTIONS, *options):
            command += ["-c", option]
        with (self.directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                self._command(command), stdout=log, stderr=log, start_new_session=True, **self._as_user()
            )
        wait_until(self._answers, 30, "PostgreSQL starts")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            assert self._server.poll() is None, (self.directory / "log").read_text()
            return False
        return True

    def stop(self) -> None:
        """Stop the server at once; its connections are cut."""
        self._server.terminate() if self._server.poll() is None else None
        subprocess.run(
            self._command(["pg_ctl", "stop", "-D", str(self.directory / "data"), "-m", "immediate"]),
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as_user(),
        )
        self._server.wait(20)

    @property
    def process_id(self) -> int:
        """The process that was started."""
        return self._server.pid

    def wait(self) -> None:
        """Return when the server has ended."""
        self._server.wait(20)

    def remove(self) -> None:
        """Stop the server and remove its files."""
        self.stop()
        shutil.rmtree(self.directory)

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://reactorcide@/{database}?host={self.directory}"

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def new_url(self, template: str = "template0") -> str:
        """Create a database and return its URL. In its language "a" comes before "B", as in most."""
        name = f"test_{next(_NUMBERS)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    @cache  # noqa: B019  # there is one cluster
    def _template(self) -> str:
        self.execute("CREATE DATABASE migrated TEMPLATE template0")
        database = PostgreSQLDatabase(self.url("migrated"))
        database.migrate()
        database.close()
        return "migrated"

    def database(self, path: Path) -> PostgreSQL:
        """Return a new database with the tables, whose key is beside ``path``."""
        if not _FREE:
            return PostgreSQL(self.new_url(self._template()), path)
        url = _FREE.pop()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_EMPTY)
        return PostgreSQL(url, path)


def programs() -> str | None:
    """Return the directory of PostgreSQL's programs; ``None`` without them."""
    found = shutil.which("initdb")
    if found:
        return str(Path(found).resolve().parent)
    return max((str(Path(path).parent) for path in glob("/usr/lib/postgresql/*/bin/initdb")), default=None)


@cache
def cluster() -> Cluster:
    """Return the server of this test session; it is started when it is first needed."""
    if programs() is None:
        pytest.skip("PostgreSQL is missing; Debian and Ubuntu: sudo apt-get install postgresql")
    started = Cluster()
    atexit.register(started.remove)
    return started
