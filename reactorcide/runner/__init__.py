"""Running containers, behind one protocol."""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Signal = Literal["TERM", "KILL"]

Printed = list[tuple[int, bytes]]
"""What a container printed, as it came: 1 for stdout or 2 for stderr, and bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What one attempt of a job needs of its container."""

    instance_id: str
    job_id: str
    attempt: int
    image: str
    command: str
    env: Mapping[str, str] = field(repr=False)
    working_dir: str
    cpu_limit: float | None
    memory_limit_bytes: int | None
    pids_limit: int


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended."""

    exit_code: int
    oom_killed: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A container of ours that the engine knows."""

    container_id: str
    job_id: str
    attempt: int
    started: bool
    """Its command has begun, and may have ended."""


class Output(Protocol):
    """What a container prints while it runs. One thread reads; any thread may wake it.

    A reader that stops reading blocks the container, so read until the end or close.
    """

    def read(self, timeout_s: float) -> Printed | None:
        """Return what was printed, or ``None`` at the end.

        Returns ``[]`` when nothing came in time, or ``wake`` was called.
        """

    def wake(self) -> None:
        """Make a ``read`` that waits, or else the next one, return at once."""

    def close(self) -> None:
        """Stop reading; safe to repeat."""


class Runner(Protocol):
    """A container engine.

    Call order for one attempt: ``create`` (after ``pull``, where it says that the image is missing),
    ``put``, ``attach``, ``start``, read the output to its end, ``wait``, ``artifacts``, ``remove``.
    Thread-safe. Every method raises ``EngineUnavailable`` when the engine does not answer, and
    ``JobFailed`` when the engine refuses what the job asks for.
    """

    def check(self) -> None:
        """Raise ``EngineUnavailable`` unless the engine answers."""

    def pull(self, image: str, progress: Callable[[str], None], check: Callable[[], None]) -> str:
        """Fetch an image and return its id.

        ``progress`` gets lines for the job's log, ``check`` may raise to give up.
        """

    def create(self, spec: ContainerSpec) -> str:
        """Make a container with an empty artifacts directory and return its id; raises ``ImageMissing``."""

    def owner(self, container_id: str) -> tuple[int, int]:
        """Return the uid and gid that the container's command will have."""

    def put(self, container_id: str, tar: Iterator[bytes]) -> None:
        """Unpack an uncompressed tar at the container's ``/``."""

    def attach(self, container_id: str) -> Output:
        """Open the output of a container that has not been started yet."""

    def reread(self, container_id: str) -> Output:
        """Open everything that a started container has printed and, while it runs, will print."""

    def start(self, container_id: str) -> None:
        """Start the command."""

    def signal(self, container_id: str, signal: Signal) -> None:
        """Send a signal to every process of the container's command; harmless once it is over."""

    def wait(self, container_id: str, timeout_s: float) -> Exit | None:
        """Wait for the end of a started container; ``None`` if it runs on. Raises ``ContainerGone``."""

    def disk_bytes(self, container_id: str) -> int | None:
        """Return what a container takes of the disk, as far as that can be told; ``None`` unless it runs.

        That is more work for the engine the more files there are. Raises ``ContainerGone``.
        """

    def artifacts(self, container_id: str) -> Generator[bytes, None, None] | None:
        """Return the artifacts directory as a tar stream, ``None`` where it is untouched or gone.

        To be closed by whoever stops reading half-way.
        """

    def remove(self, container_id: str) -> None:
        """Kill and remove a container with its volumes; safe to repeat."""

    def list(self, instance_id: str) -> list[Found]:
        """Return all containers of this installation, in whatever state."""

    def remove_stray_volumes(self, instance_id: str) -> None:
        """Remove the volumes of this installation that belong to no container."""

    def remove_image(self, image: str, image_id: str) -> bool:
        """Remove an image that was pulled with that id; tells whether nothing of it is left to remove.

        One that a container uses, of whomever, stays. So does what other names it has, and what has its
        name by now but another id.
        """

    def close(self) -> None:
        """Close the connections; safe to repeat."""


class ImageMissing(Exception):
    """The image has to be pulled first. Never leaves the worker."""


class ContainerGone(Exception):
    """There is no such container any more. Never leaves the worker."""
