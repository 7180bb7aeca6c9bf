"""A service of these tests' own, and the program that they run."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.image import Images
from tests.support.launch import CHECKOUT, LAUNCHER, run
from tests.support.waiting import wait_until

SAMPLE = CHECKOUT / "examples" / "sample-project"

_LISTENS = re.compile(r"Reactorcide listens on (http://\S+)")


@dataclass(frozen=True)
class Result:
    """How a run of the program ended."""

    code: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        """What it printed, without spaces around it."""
        return self.output.decode().strip()

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.output)


class Program:
    """``reactorcide`` with an environment in which nothing of the caller's plays a part."""

    def __init__(self, home: Path, variables: Mapping[str, str]) -> None:
        passed_on = {name: os.environ[name] for name in ("PATH", "DOCKER_HOST") if name in os.environ}
        self.environment: dict[str, str] = passed_on | {"HOME": str(home)} | dict(variables)

    def with_variables(self, **variables: str) -> "Program":
        """Return the same with other variables."""
        return Program(Path(self.environment["HOME"]), self.environment | variables)

    def __call__(
        self,
        *arguments: object,
        input: bytes = b"",
        cwd: Path | None = None,
        python: Sequence[str] = LAUNCHER,
    ) -> Result:
        """Run a command to its end."""
        command = [*python, *map(str, arguments)]
        done = run(command, self.environment, cwd or CHECKOUT, input=input, timeout_s=60)
        errors = done.stderr.decode()
        assert "Traceback" not in errors, errors
        return Result(done.returncode, done.stdout, errors)

    def fine(self, *arguments: object, **options: Any) -> Result:
        """Run a command that has to succeed."""
        result = self(*arguments, **options)
        assert result.code == 0, result
        return result

    def refused(self, *arguments: object, **options: Any) -> str:
        """Run a command that has to fail, and return the one sentence that it says."""
        result = self(*arguments, **options)
        assert (result.code, result.output) == (1, b""), result
        assert re.fullmatch(r"reactorcide: [^\n]+\n", result.errors), result.errors
        return result.errors

    def start(
        self,
        *arguments: object,
        stdout: IO[bytes] | int,
        stderr: IO[bytes] | int,
        cwd: Path | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start a command that goes on."""
        return subprocess.Popen(
            [*LAUNCHER, *map(str, arguments)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            start_new_session=True,
        )


class Service:
    """A running ``reactorcide serve``, with the checkout's sample project among its sources."""

    def __init__(self, home: Path, image: str) -> None:
        self.home = home
        self.data_dir = home / "data"
        self.sources = home / "sources"
        self.sources.mkdir()
        log_path = home / "service.log"
        options: dict[str, object] = {
            "--port": 0,
            "--data-dir": self.data_dir,
            "--default-image": image,
            "--cancel-grace": 1,
            "--warm": 0,
        }
        roots = ["--source-root", str(self.sources), "--source-root", str(SAMPLE.parent)]
        with log_path.open("wb") as log:
            self._process = Program(home, {}).start(
                "serve",
                *(part for option in options.items() for part in option),
                *roots,
                stdout=log,
                stderr=log,
            )
        wait_until(
            lambda: _LISTENS.search(log_path.read_text()) is not None or self._process.poll() is not None,
            20,
            "it listens",
        )
        match = _LISTENS.search(log_path.read_text())
        assert match is not None, log_path.read_text()
        self.url = match[1]

    @property
    def pid(self) -> int:
        """The process that holds the data directory."""
        return self._process.pid

    def stop(self) -> None:
        """Stop it; it has to end with exit code 0."""
        self._process.terminate()
        try:
            assert self._process.wait(15) == 0
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


@pytest.fixture(scope="session")
def image(images: Images) -> str:
    """The image that jobs run in; it is not pulled."""
    return images.default


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, image: str) -> Iterator[Service]:
    """A service that the tests of a module share; they leave no job running on it."""
    service = Service(tmp_path_factory.mktemp("service"), image)
    try:
        yield service
        active = ("--status", "running", "--status", "queued", "--status", "submitted")
        wait_until(
            lambda: program_of(service).fine("jobs", "list", *active, "--json").json["total"] == 0,
            20,
            "the cancelled jobs have ended",
        )
    finally:
        service.stop()


def program_of(service: Service) -> Program:
    """Return the program as the operator of a service on this host uses it: without a token."""
    return Program(service.home, {"REACTORCIDE_DATA_DIR": str(service.data_dir)})


@pytest.fixture
def reactorcide(service: Service) -> Program:
    """The program, against the module's service."""
    return program_of(service)


@pytest.fixture
def lone(tmp_path: Path) -> Program:
    """The program, without any service."""
    return Program(tmp_path, {"REACTORCIDE_DATA_DIR": str(tmp_path / "data")})
