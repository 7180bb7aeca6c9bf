"""A real sshd on a free port, for this user, with keys of a test."""

import getpass
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_port, is_listening
from tests.support.waiting import wait_until

PROGRAM = Path("/usr/sbin/sshd")


class Sshd:
    """A server: its address, its own key, and which keys it lets in."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.user = getpass.getuser()
        self.authorized = directory / "authorized"
        self.authorized.touch()

    def url(self, path: Path) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}"

    @property
    def host_key(self) -> str:
        """The line of it in ``known_hosts``."""
        kind, key, *_ = (self.directory / "host.pub").read_text().split()
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def let_in(self, public: str) -> None:
        with self.authorized.open("a") as file:
            file.write(f"{public}\n")

    def new_host_key(self) -> None:
        """Make another key for the server; it has it from the next start on."""
        for path in (self.directory / "host", self.directory / "host.pub"):
            path.unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.directory / "host")]
        subprocess.run(command, check=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        config = self.directory / "config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.directory / 'host'}\nPidFile none\n"
            f"AuthorizedKeysFile {self.authorized}\nStrictModes no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nUsePAM no\n"
        )
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen([PROGRAM, "-D", "-e", "-f", config], stderr=log)
        try:
            wait_until(lambda: is_listening(self.port), 20, f"sshd answers; its log is {self.log}")
            yield
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def sshd(directory: Path) -> Iterator[Sshd]:
    """Run a server until the end of the body."""
    if not PROGRAM.exists():
        pytest.skip("sshd is missing: scripts/ensure-tool sshd")
    if os.geteuid() == 0:
        # Of the package, which its init script makes.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    directory.mkdir()
    server = Sshd(directory, free_port())
    server.new_host_key()
    with server.running():
        yield server
