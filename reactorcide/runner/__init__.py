"""Running containers, behind one protocol."""

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import field
from time import monotonic
from typing import Literal, Protocol

from reactorcide.lib.records import record

Signal = Literal["TERM", "KILL"]

OutputChunk = tuple[int, bytes]
"""A chunk of a container's output: 1 for stdout or 2 for stderr, and the bytes."""


@record(kw_only=True)
class ContainerSpec:
    """The container to create for an attempt of a job."""

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
    """Names of services, which it reaches on its loopback."""
    user: str | None = None
    """The user of the command, like ``1000:1000``; ``None``: the user of the image."""
    can_be_warm: bool = False
    """Whether it may start before its files are copied into it."""


@record(kw_only=True)
class ServiceSpec:
    """The container to create for a service of a job."""

    name: str
    job_container_id: str
    """The container whose network it shares."""
    job: ContainerSpec
    """Labels and limits, the same as of the job's container."""
    image: str
    command: Sequence[str] | None
    """Replaces the image's command; ``None``: the image's command."""
    env: Mapping[str, str] = field(repr=False)


@record
class ImageFacts:
    """Facts about a service from its image."""

    health_check: Sequence[str] | None
    """A command that succeeds when it is healthy."""
    ports: frozenset[str]
    """Exposed ports, such as ``5432/tcp``."""


@record
class Started:
    """One life of a container: from its start to its end. ``docker restart`` begins another one."""

    at: str
    """When it began, in the engine's own words."""
    shell_level: str | None
    """``SHLVL`` in the container's configuration."""


@record
class Exit:
    """How a container ended."""

    exit_code: int
    oom_killed: bool
    answered_at: float = field(default_factory=monotonic, compare=False)
    """When the engine reported the end, by ``time.monotonic``; the reason may have been known later."""


@record
class ContainerInfo:
    """A container of the engine with the labels of an attempt."""

    container_id: str
    job_id: str
    attempt: int
    service: str | None
    """The name of the service that runs in it; ``None`` if it is the job's own container."""
    is_named: bool
    """Whether it also has the attempt's name. Labels are no proof: ``docker commit`` copies them to an
    image."""


@record
class WarmView:
    """Figures of the containers that were created ahead of jobs."""

    size: int
    """The maximum number of containers."""
    waiting: int
    jobs_warm: int
    """The number of jobs that got one."""
    jobs_cold: int
    """The number of jobs that got a new container."""


class Output(Protocol):
    """The output of a running command. One thread reads; any thread may wake it.

    A reader that stops reading blocks the container, so read until the end or close.
    """

    @property
    def acknowledged(self) -> bool:
        """Return whether the acknowledgement of the command has been read."""

    @property
    def launcher_output(self) -> bytes:
        """The output before an acknowledgement, if there was none."""

    @property
    def unacknowledged_bytes(self) -> int:
        """The number of bytes before the acknowledgement, or so far."""

    def read(self, timeout_s: float) -> list[OutputChunk] | None:
        """Return chunks of output, or ``None`` at the end.

        Returns ``[]`` after the timeout, after ``wake``, or when only the acknowledgement was read.
        """

    def wake(self) -> None:
        """Make a ``read`` that waits, or else the next one, return at once."""

    def close(self) -> None:
        """Stop reading; safe to repeat."""


class AttachedOutput(Output, Protocol):
    """The output of a container attached before its start, and the input for its command."""

    @property
    def is_sent(self) -> bool:
        """Return whether the whole command has been sent; before, it cannot have run."""

    @property
    def is_local(self) -> bool:
        """Return whether the connection is local to this host, so that its end cannot get lost in a
        network."""

    def hand_over(self, spec: ContainerSpec, started: Started) -> None:
        """Start sending the command; ``read`` sends the rest without blocking.

        The command runs when all of it has arrived, and not at all where this connection ends before.
        """


class Runner(Protocol):
    """A container engine.

    Call order for one attempt: ``create`` (after ``pull``, if the image is missing), ``put``,
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
        """Create a container with an empty artifacts directory and return its id; raises ``ImageMissing``.

        It may be a warm one: created, attached and started before, and never used. The following calls and
        the command's environment are the same.
        """

    def owner(self, container_id: str) -> tuple[int, int]:
        """Return the uid and gid of the container's command."""

    def put(self, container_id: str, tar: Iterator[bytes]) -> None:
        """Unpack an uncompressed tar at the container's ``/``."""

    def attach(self, container_id: str) -> AttachedOutput:
        """Open the output of a container that has not been started yet."""

    def reread(self, container_id: str, *, was_handed_over: bool = True) -> Output:
        """Open the complete output of a container's command, and follow it while it runs.

        ``was_handed_over`` is false for a container of an older version, whose command began with its start.
        """

    def start(self, container_id: str) -> Started:
        """Start a container, which then waits for its command."""

    def is_acknowledged(self, container_id: str) -> bool:
        """Return whether the engine's copy of the output has the acknowledgement.

        A negative answer is certain only once the container has ended. Raises ``ContainerGone``.
        """

    def is_paused(self, container_id: str) -> bool:
        """Return whether somebody has paused a container; raises ``ContainerGone``."""

    def create_service(self, spec: ServiceSpec) -> str:
        """Create the container of a service and return its id; raises ``ImageMissing``."""

    def start_service(self, container_id: str) -> None:
        """Start the container of a service; the job's container must be running."""

    def image_facts(self, image: str) -> ImageFacts:
        """Return the facts about a service from its local image."""

    def begin_check(self, container_id: str, command: Sequence[str]) -> str | None:
        """Start a command in a container; returns its id for ``check_result``, ``None`` if that has ended."""

    def check_result(self, check_id: str) -> int | None:
        """Return the exit code of a command that ``begin_check`` has started; ``None`` while it runs."""

    def exit_now(self, container_id: str) -> Exit | None:
        """Return how a container has ended; ``None`` while it runs. Raises ``ContainerGone``."""

    def output_end(self, container_id: str, max_bytes: int) -> bytes:
        """Return the end of a service's output, on both streams. Raises ``ContainerGone``."""

    def signal(self, container_id: str, signal: Signal) -> None:
        """Send a signal to every process of the container's command; harmless after its end."""

    def wait(self, container_id: str, timeout_s: float, started_at: str | None) -> Exit | None:
        """Wait for the end of a container that was started at ``started_at``; ``None`` if it still runs.

        Raises ``ContainerGone``, and ``ContainerRestarted`` if it was restarted since. ``None`` as
        ``started_at`` means any start.
        """

    def disk_bytes(self, container_id: str) -> int | None:
        """Return the measurable disk usage of a container; ``None`` unless it runs.

        The engine's work grows with the number of files. Raises ``ContainerGone``.
        """

    def copy_bytes(self, container_id: str) -> int | None:
        """Return the disk usage of the engine's copy of the output; ``None`` if it is unknown.

        Raises ``ContainerGone``.
        """

    def artifacts(self, container_id: str) -> Generator[bytes, None, None] | None:
        """Return the artifacts directory as a tar stream, ``None`` if it is unchanged.

        To be closed by whoever stops reading half-way. Raises ``ContainerGone``, and ``JobFailed`` if the
        job has moved the directory away.
        """

    def has_path(self, container_id: str, path: str) -> bool:
        """Return whether a path exists in a container. Raises ``ContainerGone``."""

    def read_file(self, container_id: str, path: str, max_bytes: int) -> bytes | None:
        """Return the content of a file in a container; ``None`` if it does not exist.

        No link is followed. Raises ``ContainerGone``, and ``JobFailed`` for what is not a regular file, or is
        larger than ``max_bytes``.
        """

    def files(self, container_id: str, path: str) -> Generator[bytes, None, None] | None:
        """Return a path of a container as a tar stream; ``None`` if it does not exist.

        The first part of each name in the tar is the last part of the path. A link at the path itself is not
        followed. To be closed by whoever stops reading half-way. Raises ``ContainerGone``.
        """

    def remove(self, container_id: str) -> None:
        """Kill and remove a container with its volumes; safe to repeat."""

    def list(self, instance_id: str) -> list[ContainerInfo]:
        """Return all containers with labels of this installation, in any state."""

    def keep_warm(self, may_create: Callable[[], bool]) -> None:
        """Maintain the warm containers: remove those that have waited too long, and create others.

        Others are created one by one, as long as ``may_create``. For one thread, the one that sweeps.
        """

    def drop_warm(self) -> None:
        """Remove the warm containers, and create no more."""

    def unused_warm(self, instance_id: str) -> frozenset[str]:
        """Return warm containers that this process neither holds nor has handed to a job.

        A warm container of an earlier process is either in an attempt's row by now, or unused.
        """

    def warm_view(self) -> WarmView:
        """Return the figures of the warm containers."""

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
    """The image must be pulled first. Never leaves the worker."""


class ContainerGone(Exception):
    """The container no longer exists. Never leaves the worker."""


class ContainerRestarted(ContainerGone):
    """The container was restarted, so its command has ended. Never leaves the worker."""
