"""Running containers, behind one protocol."""

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal, Protocol

Signal = Literal["TERM", "KILL"]

OutputChunk = tuple[int, bytes]
"""A part of a container's output, as it came: 1 for stdout or 2 for stderr, and the bytes."""


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
    host_names: Sequence[str] = ()
    """Names of services, which it reaches on its own loopback."""
    user: str | None = None
    """Whom the command runs as, like ``1000:1000``; ``None``: the user of the image."""
    can_be_warm: bool = False
    """It may have started before its files are put into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """What one attempt of a job needs of the container of a service."""

    name: str
    job_container_id: str
    """The container whose network it shares."""
    job: ContainerSpec
    """What it has in common with that: its labels and its limits."""
    image: str
    command: Sequence[str] | None
    """In place of the image's own; ``None`` keeps that."""
    env: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image says about the service in it."""

    health_check: Sequence[str] | None
    """A command that succeeds when it is healthy."""
    ports: frozenset[str]
    """Such as ``5432/tcp``."""


@dataclass(frozen=True, slots=True)
class Started:
    """One life of a container: from its start to its end. ``docker restart`` begins another one."""

    at: str
    """When it began, in the engine's own words."""
    shell_level: str | None
    """``SHLVL`` in the container's configuration."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended."""

    exit_code: int
    oom_killed: bool
    answered_at: float = field(default_factory=monotonic, compare=False)
    """When the engine told of the end, by ``time.monotonic``; why it ended may have been known only later."""


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container that the engine knows and that has the labels of an attempt."""

    container_id: str
    job_id: str
    attempt: int
    service: str | None
    """The name of the service that runs in it; ``None`` if it is the job's own container."""
    is_named: bool
    """It has the name of that, too. Labels prove nothing: ``docker commit`` copies them to an image."""


@dataclass(frozen=True, slots=True)
class WarmView:
    """The containers that were created ahead of any job."""

    size: int
    """The most that there may be."""
    waiting: int
    jobs_warm: int
    """Jobs that got one."""
    jobs_cold: int
    """Jobs that got a new container."""


class Output(Protocol):
    """What a command prints while it runs. One thread reads; any thread may wake it.

    A reader that stops reading blocks the container, so read until the end or close.
    """

    @property
    def acknowledged(self) -> bool:
        """Return whether what was read has shown that the command was handed over."""

    @property
    def launcher_output(self) -> bytes:
        """What was printed by whatever waits for the command, where nothing was acknowledged."""

    @property
    def unacknowledged_bytes(self) -> int:
        """How much was printed before the acknowledgement, or so far where none has come."""

    def read(self, timeout_s: float) -> list[OutputChunk] | None:
        """Return what was printed, or ``None`` at the end.

        Returns ``[]`` when nothing came in time, or ``wake`` was called, or the acknowledgement was read.
        """

    def wake(self) -> None:
        """Make a ``read`` that waits, or else the next one, return at once."""

    def close(self) -> None:
        """Stop reading; safe to repeat."""


class AttachedOutput(Output, Protocol):
    """The output of a container that was attached to before its start, and the way in for its command."""

    @property
    def is_sent(self) -> bool:
        """Return whether the whole command has been sent; before, it cannot have run."""

    @property
    def is_local(self) -> bool:
        """Return whether the connection stays on this host, so that its end cannot be lost on the way."""

    def hand_over(self, spec: ContainerSpec, started: Started) -> None:
        """Begin to send the command; ``read`` sends the rest, without ever waiting for it.

        The command runs when all of it has arrived, and not at all where this connection ends before.
        """


class Runner(Protocol):
    """A container engine.

    Call order for one attempt: ``create`` (after ``pull``, where it says that the image is missing), ``put``,
    ``attach``, ``start``, ``hand_over`` on what ``attach`` returned, read the output to its end, ``wait``,
    ``artifacts``, ``remove``. A container whose command was not handed over runs nothing, however often it is
    started. Thread-safe. Every method raises ``EngineUnavailable`` when the engine does not answer, and
    ``JobFailed`` when the engine refuses what the job asks for.
    """

    def check(self) -> None:
        """Raise ``EngineUnavailable`` unless the engine answers."""

    def pull(self, image: str, progress: Callable[[str], None], check: Callable[[], None]) -> str:
        """Fetch an image and return its id.

        ``progress`` gets lines for the job's log, ``check`` may raise to give up.
        """

    def create(self, spec: ContainerSpec) -> str:
        """Make a container with an empty artifacts directory and return its id; raises ``ImageMissing``.

        It may be a warm one: created, attached to and started before, and never used. What is called next is
        the same, and what its command sees, too.
        """

    def owner(self, container_id: str) -> tuple[int, int]:
        """Return the uid and gid that the container's command will have."""

    def put(self, container_id: str, tar: Iterator[bytes]) -> None:
        """Unpack an uncompressed tar at the container's ``/``."""

    def attach(self, container_id: str) -> AttachedOutput:
        """Open the output of a container that has not been started yet."""

    def reread(self, container_id: str, *, was_handed_over: bool = True) -> Output:
        """Open everything that a container's command has printed and, while it runs, will print.

        ``was_handed_over`` is false for a container of an older version, whose command began with its start.
        """

    def start(self, container_id: str) -> Started:
        """Start a container, which then waits for its command."""

    def is_acknowledged(self, container_id: str) -> bool:
        """Return whether the engine's copy of the output has the acknowledgement.

        That it has none is certain only once the container has ended. Raises ``ContainerGone``.
        """

    def create_service(self, spec: ServiceSpec) -> str:
        """Make the container of a service and return its id; raises ``ImageMissing``."""

    def start_service(self, container_id: str) -> None:
        """Start the container of a service; that of its job has to run."""

    def image_facts(self, image: str) -> ImageFacts:
        """Return what an image that is there says about its service."""

    def begin_check(self, container_id: str, command: Sequence[str]) -> str | None:
        """Start a command in a container; returns its id for ``check_result``, ``None`` if that has ended."""

    def check_result(self, check_id: str) -> int | None:
        """Return the exit code of a command that ``begin_check`` has started; ``None`` while it runs."""

    def exit_now(self, container_id: str) -> Exit | None:
        """Return how a container has ended; ``None`` while it runs. Raises ``ContainerGone``."""

    def output_end(self, container_id: str, max_bytes: int) -> bytes:
        """Return the end of what a service has printed, on both streams. Raises ``ContainerGone``."""

    def signal(self, container_id: str, signal: Signal) -> None:
        """Send a signal to every process of the container's command; harmless once it is over."""

    def wait(self, container_id: str, timeout_s: float, started_at: str | None) -> Exit | None:
        """Wait for the end of the life of a container that began at ``started_at``; ``None`` if it runs on.

        Raises ``ContainerGone``, and ``ContainerRestarted`` if another life has begun since. ``None`` as
        ``started_at`` stands for any life.
        """

    def disk_bytes(self, container_id: str) -> int | None:
        """Return what a container takes of the disk, as far as that can be told; ``None`` unless it runs.

        That is more work for the engine the more files there are. Raises ``ContainerGone``.
        """

    def copy_bytes(self, container_id: str) -> int | None:
        """Return what the engine's copy of the output takes of the disk; ``None`` if it cannot be asked.

        Raises ``ContainerGone``.
        """

    def artifacts(self, container_id: str) -> Generator[bytes, None, None] | None:
        """Return the artifacts directory as a tar stream, ``None`` if it is untouched.

        To be closed by whoever stops reading half-way. Raises ``ContainerGone``, and ``JobFailed`` if the
        job has moved the directory away.
        """

    def has_path(self, container_id: str, path: str) -> bool:
        """Return whether there is anything at a path of a container. Raises ``ContainerGone``."""

    def read_file(self, container_id: str, path: str, max_bytes: int) -> bytes | None:
        """Return what a file of a container holds; ``None`` if there is nothing at its path.

        No link is followed. Raises ``ContainerGone``, and ``JobFailed`` for what is not a regular file, or is
        larger than ``max_bytes``.
        """

    def files(self, container_id: str, path: str) -> Generator[bytes, None, None] | None:
        """Return what is at a path of a container as a tar stream; ``None`` if it has no such path.

        The first part of each name in the tar is the last part of the path. A link at the path itself is not
        followed. To be closed by whoever stops reading half-way. Raises ``ContainerGone``.
        """

    def remove(self, container_id: str) -> None:
        """Kill and remove a container with its volumes; safe to repeat."""

    def list(self, instance_id: str) -> list[ContainerInfo]:
        """Return all containers with labels of this installation, in whatever state."""

    def keep_warm(self, may_create: Callable[[], bool]) -> None:
        """Have containers wait for the next jobs: remove those that have waited too long, and create others.

        Others are created one by one, as long as ``may_create``. For one thread, the one that sweeps.
        """

    def drop_warm(self) -> None:
        """Remove the containers that wait for jobs, and create none any more."""

    def left_warm(self, instance_id: str) -> frozenset[str]:
        """Return the containers created ahead of jobs that do not wait here, and were not taken here.

        What an earlier process has left is either some attempt's by now, whose row names it, or nobody's.
        """

    def warm_view(self) -> WarmView:
        """Return how many containers wait for jobs, and what has been used."""

    def remove_stray_volumes(
        self, instance_id: str, needed: Callable[[], Collection[tuple[str, int]]]
    ) -> None:
        """Remove the volumes of this installation that belong to no container.

        Those of attempts in ``needed`` (the job's id and the number) stay: the container of such a one may
        just be about to be created. It is called once the engine has listed the volumes.
        """

    def remove_image(self, image: str, image_id: str) -> bool:
        """Remove an image that was pulled with that id; returns whether nothing of it is left to remove.

        One that a container uses, of whomever, stays. So does what other names it has, and what has its
        name by now but another id.
        """

    def close(self) -> None:
        """Close the connections; safe to repeat."""


class ImageMissing(Exception):
    """The image has to be pulled first. Never leaves the worker."""


class ContainerGone(Exception):
    """There is no such container any more. Never leaves the worker."""


class ContainerRestarted(ContainerGone):
    """There is the container, but its command's life is over. Never leaves the worker."""
