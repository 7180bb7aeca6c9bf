"""A separate Docker Engine for one test, which can stop it without affecting other containers."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import docker.errors
import pytest

from tests.support.waiting import wait_until

_START_S = 30
_STOP_S = 30


class OwnEngine:
    """A ``dockerd`` with a socket and all data in a directory that goes with it.

    ``start``, then ``stop`` or ``kill``, any number of times over, and ``close`` at the end. Containers have
    no network. With ``live_restore`` they go on while the daemon is away, as does their ``containerd``.
    """

    def __init__(self, *, live_restore: bool) -> None:
        # Short, for the path of a socket must be.
        self._directory = Path(tempfile.mkdtemp(prefix="rc-engine-"))
        self._live_restore = live_restore
        self._dockerd: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._directory / 'docker'}"
        config = self._directory / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        self._containerd = self._spawn(
            "containerd",
            config=config,
            address=self._directory / "containerd",
            root=self._directory / "images",
            state=self._directory / "state",
        )

    def start(self) -> "OwnEngine":
        """Start the daemon and return when it answers."""
        if not self._live_restore:
            # A daemon that takes its containers along now and then leaves the filesystem of one mounted, and
            # then the next daemon can never remove that container.
            self._unmount()
        started = self._spawn(
            "dockerd",
            containerd=self._directory / "containerd",
            host=self.url,
            data_root=self._directory / "data",
            exec_root=self._directory / "exec",
            pidfile=self._directory / "pid",
            bridge="none",
            iptables="false",
            ip6tables="false",
            live_restore=str(self._live_restore).lower(),
        )
        self._dockerd = started
        wait_until(
            lambda: self._answers() or started.poll() is not None, _START_S, "the tests' own engine answers"
        )
        assert started.poll() is None, (self._directory / "dockerd.log").read_text(errors="replace")[-3000:]
        return self

    def stop(self) -> None:
        """Stop the daemon in its own time; without ``live_restore`` its containers are stopped first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the daemon at once."""
        self._end(signal.SIGKILL)

    def client(self) -> docker.APIClient:
        """Return a new client, which the caller closes."""
        return docker.APIClient(self.url, version="auto", timeout=30)

    def close(self) -> None:
        """Leave nothing running and nothing on the disk, also where the daemon does not start any more."""
        try:
            if self._dockerd is None:
                self.start()
            with contextlib.closing(self.client()) as client:
                for container in client.containers(all=True):
                    try:
                        client.remove_container(container["Id"], v=True, force=True)
                    except docker.errors.APIError as exc:
                        # A service removes it at the same time.
                        if exc.status_code not in (404, 409):
                            raise
                wait_until(lambda: not client.containers(all=True), _STOP_S, "its containers are gone")
        finally:
            for process in (self._dockerd, self._containerd):
                if process is not None:
                    _end_for_certain(process)
            self._unmount()
            shutil.rmtree(self._directory)

    def _unmount(self) -> None:
        """Unmount whatever is still mounted, where neither daemon nor containers run."""
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if mount.startswith(f"{self._directory}/"):
                subprocess.run(["umount", mount], check=True)

    def _spawn(self, program: str, **options: object) -> "subprocess.Popen[bytes]":
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        with (self._directory / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                # In a network of its own: without a bridge, dockerd removes the one that is there.
                ["unshare", "--net", program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(self.url.removeprefix("unix://"))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(64)
        return False

    def _end(self, number: signal.Signals) -> None:
        assert self._dockerd is not None
        self._dockerd.send_signal(number)
        self._dockerd.wait(_STOP_S)
        self._dockerd = None


@contextlib.contextmanager
def own_engines() -> Iterator[Callable[..., OwnEngine]]:
    """Yield a factory of started engines, which end with the body."""
    if "CI" not in os.environ and (os.geteuid() != 0 or shutil.which("dockerd") is None):
        pytest.skip("an engine of the tests' own takes root and dockerd")
    with contextlib.ExitStack() as engines:

        def make(*, live_restore: bool) -> OwnEngine:
            engine = OwnEngine(live_restore=live_restore)
            engines.callback(engine.close)
            return engine.start()

        yield make


def _end_for_certain(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
