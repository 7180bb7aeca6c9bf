"""The container of one attempt: creating it, handing over its command, and waiting for it."""

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from enum import Enum, auto
from time import monotonic
from typing import TypeVar

from reactorcide import crashpoints
from reactorcide.domain.errors import (
    EngineUnavailable,
    InfrastructureError,
    JobFailed,
    JobInterrupted,
    ReactorcideError,
)
from reactorcide.domain.jobs import OpenAttempt
from reactorcide.lib.sizes import format_size
from reactorcide.runner import (
    AttachedOutput,
    ContainerGone,
    ContainerRestarted,
    ContainerSpec,
    Exit,
    ImageMissing,
    Output,
    Runner,
    Signal,
    Started,
)
from reactorcide.runner.handover import MAX_UNACKNOWLEDGED_BYTES, NOT_HANDED_OVER
from reactorcide.worker.attempt.patience import Patience
from reactorcide.worker.background import Background
from reactorcide.worker.interrupt import Interrupt

T = TypeVar("T")

log = logging.getLogger("reactorcide.worker")

LOOK_S = 0.05
"""Timeout of a check whether the container has ended, if it usually has."""
_HAND_OVER_S = 60.0
"""The most for a container to acknowledge its command: that takes milliseconds, a MiB of newlines seconds."""
_UNSEEN_HAND_OVER_S = 5.0
"""How long to look for the acknowledgement of a command whose sender was lost during the handover."""
_COPY_TRIES = 5
"""Tries with a reachable engine; an unreachable one is waited for."""
_NO_PROGRAM = (126, 127)
"""Exit codes of an init that cannot run the launcher's shell."""
_SENT_BY_OTHERS = (NOT_HANDED_OVER, 137, 143)
"""Exit codes of a launcher whose input ended, or that was stopped."""


class Progress(Enum):
    """The progress of an attempt, which decides whether it may be repeated."""

    PREPARING = auto()
    """Its command was certainly not handed over completely: nothing has run."""
    HANDING_OVER = auto()
    """The row records the handover. Only the engine's copy of the output shows whether the command runs."""
    STARTED = auto()
    """The command runs or has run, or may have."""


class Container:
    """The container of one attempt, new or left by an earlier process.

    For one thread; ``disk_bytes`` may be called from any.
    """

    def __init__(
        self,
        runner: Runner,
        background: Background,
        interrupt: Interrupt,
        patiently: Patience,
        log_fields: Mapping[str, object],
        *,
        memory_limit_bytes: int | None,
        services: Callable[[], list[str]] = list,
        adopted: OpenAttempt | None = None,
    ) -> None:
        """``services`` returns the ids of the containers of the attempt's services."""
        self._runner = runner
        self._background = background
        self._interrupt = interrupt
        self._patiently = patiently
        self._log_fields = log_fields
        self._memory_limit_bytes = memory_limit_bytes
        self._services = services
        self._container_id = None if adopted is None else adopted.container_id
        self._started_at = None if adopted is None else adopted.container_started_at
        self.progress = Progress.PREPARING if adopted is None else _progress_of(adopted)
        self.exit: Exit | None = None
        """The end of the command, once known."""
        self.late: str | None = None
        """The problem, if no acknowledgement arrived in time on a working connection."""
        self._killed_because: str | None = None
        """Why the container was killed before its command was seen to run."""

    @property
    def container_id(self) -> str:
        """The engine's id of the container; only after it was created."""
        if self._container_id is None:
            raise RuntimeError("the attempt has no container yet")
        return self._container_id

    @property
    def exists(self) -> bool:
        """Return whether a container is known to be created."""
        return self._container_id is not None

    # --- before the command --------------------------------------------------------------------

    def create(
        self,
        spec: ContainerSpec,
        *,
        pull: str,
        progress: Callable[[str], None],
        pulled: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        """Create the container; pull its image first if required.

        ``progress`` gets lines for the job's log, ``pulled`` the id of an image that was missing; ``check``
        raises to give up. Raises ``JobFailed`` if the image cannot be had.
        """
        self._container_id = create_with_image(
            self._runner,
            spec.image,
            lambda: self._runner.create(spec),
            pull=pull,
            progress=progress,
            pulled=pulled,
            check=check,
        )

    def start(self) -> Started:
        """Start the container, which then waits for its command."""
        started = self._runner.start(self.container_id)
        self._started_at = started.at
        return started

    def hand_over(
        self, output: AttachedOutput, spec: ContainerSpec, started: Started, *, timeout_s: float
    ) -> bool:
        """Send the command; returns whether it was acknowledged on this connection in time.

        ``timeout_s`` is the command's own, and a bound for this, too. Raises ``JobFailed`` for an image's
        shell that prints without end, ``JobInterrupted`` for a cancel and for the service's stop.
        """
        deadline = monotonic() + min(timeout_s, _HAND_OVER_S)
        output.hand_over(spec, started)
        with self._interrupt.calling(output.wake):
            while not output.acknowledged:
                if self._interrupt.reason is not None:
                    raise JobInterrupted("while the command was handed over")
                if output.unacknowledged_bytes > MAX_UNACKNOWLEDGED_BYTES:
                    self.signal("KILL")
                    raise JobFailed(
                        f"the image's /bin/sh printed more than {format_size(MAX_UNACKNOWLEDGED_BYTES)} "
                        "before it took the command"
                    )
                remaining_s = deadline - monotonic()
                if remaining_s <= 0:
                    if output.is_local:
                        timed_out = f"timed out after {timeout_s:g} s: " if timeout_s < _HAND_OVER_S else ""
                        self.late = f"{timed_out}the image's /bin/sh did not take the command"
                    return False
                if output.read(remaining_s) is None:
                    return False
        crashpoints.reached("handover-acknowledged")
        return True

    def require_command(self, problem: str, printed: bytes = b"") -> None:
        """Return normally if the command runs, or has run, although no acknowledgement was seen.

        Called when the connection for the command is closed. A container that still waits is killed. If the
        command has not run, the container has ended, and this raises ``InfrastructureError`` with the
        ``problem``, or ``JobFailed`` if the image's shell is to blame; ``printed`` is what that has printed.
        Raises ``ContainerGone`` if it is unknown.

        That the command has not run is never concluded from the exit code: TERM, KILL and a lack of memory
        come before the command, too, and commands have the same codes.
        """
        gives_up_at = monotonic() + _UNSEEN_HAND_OVER_S
        tries = 0
        while True:
            began_at = monotonic()
            # Checked before the copy is read, because the copy is complete only after the container's end.
            ended = self._launcher_exit()
            if monotonic() - began_at >= _UNSEEN_HAND_OVER_S:
                # The engine was unreachable, so the container may only now notice the end of its input.
                gives_up_at = monotonic() + _UNSEEN_HAND_OVER_S
            try:
                if self._runner.is_acknowledged(self.container_id):
                    return
                if ended is not None:
                    self.progress = Progress.PREPARING
                    if self._killed_because is not None and self.late is not None:
                        raise JobFailed(self.late + quoted_output(printed))
                    raise self._not_run(ended, problem, printed)
            except EngineUnavailable as exc:
                self._patiently(self.check_engine)
                tries += 1
                if tries == _COPY_TRIES:
                    # An unreadable copy may contain the acknowledgement.
                    log.warning("the command counts as run: %s", exc, extra=self._log_fields)
                    return
            if monotonic() >= gives_up_at and self._killed_because is None:
                if self._patiently(lambda: self._runner.is_paused(self.container_id)):
                    self.late, problem = None, "somebody has paused its container before it took the command"
                self._killed_because = self.late or problem
                self.signal("KILL")
            self._patiently.rest(LOOK_S)

    def _launcher_exit(self) -> Exit | None:
        try:
            return self.wait(LOOK_S)
        except ContainerRestarted:
            return Exit(NOT_HANDED_OVER, oom_killed=False)

    def _not_run(self, ended: Exit, problem: str, printed: bytes) -> ReactorcideError:
        if ended.oom_killed:
            return JobFailed(f"{self._out_of_memory()}, before the command had started")
        if ended.exit_code in _SENT_BY_OTHERS:
            return InfrastructureError(problem)
        if ended.exit_code in _NO_PROGRAM:
            return JobFailed(f"the image has no /bin/sh that can be run{quoted_output(printed)}")
        return JobFailed(
            f"the image's /bin/sh ended with exit code {ended.exit_code} before it took the command"
            + quoted_output(printed)
        )

    # --- while the command runs ----------------------------------------------------------------

    def wait(self, timeout_s: float) -> Exit | None:
        """Wait for the end of the container's life; ``None`` if it runs on.

        Raises ``ContainerGone``, and ``ContainerRestarted`` if another life has begun since.
        """
        if self.exit is None:
            self.exit = self._patiently(
                lambda: self._runner.wait(self.container_id, timeout_s, self._started_at)
            )
        return self.exit

    def has_ended(self) -> bool:
        """Return whether the engine reports the container as ended."""
        if self.exit is None:
            with suppress(EngineUnavailable):
                self.exit = self._runner.wait(self.container_id, 0.1, self._started_at)
        return self.exit is not None

    def reread(self) -> Output:
        """Open the engine's copy of the command's whole output; raises ``ContainerGone``."""
        was_handed_over = self._started_at is not None
        return self._patiently(
            lambda: self._runner.reread(self.container_id, was_handed_over=was_handed_over)
        )

    def signal(self, signal: Signal) -> None:
        """Send a signal to the command; if the engine is unreachable the caller repeats it."""
        try:
            self._runner.signal(self.container_id, signal)
        except EngineUnavailable as exc:
            log.warning("the container could not be told to stop: %s", exc, extra=self._log_fields)

    def disk_bytes(self, copy_bytes: int) -> int:
        """Return the measurable disk usage of the container on the engine.

        ``copy_bytes`` is the size of the copy of its output, for an engine that does not report it. Raises
        ``EngineUnavailable``.
        """
        try:
            used_bytes = self._runner.disk_bytes(self.container_id)
            copied_bytes = self._runner.copy_bytes(self.container_id)
        except ContainerGone:
            return 0
        if used_bytes is None:
            return 0
        return used_bytes + (copied_bytes or copy_bytes) + sum(map(self._service_bytes, self._services()))

    def _service_bytes(self, container_id: str) -> int:
        try:
            return (self._runner.disk_bytes(container_id) or 0) + (self._runner.copy_bytes(container_id) or 0)
        except ContainerGone:
            return 0

    def check_engine(self) -> None:
        """Raise ``EngineUnavailable`` unless the engine answers."""
        self._runner.check()

    # --- after the command ---------------------------------------------------------------------

    def exit_problem(self, ended: Exit) -> str | None:
        """Return a phrase about the failure of a command that ended by itself."""
        if ended.exit_code == 0:
            return None
        if ended.oom_killed:
            return self._out_of_memory()
        if ended.exit_code == 137 and self._killed_because is not None:
            # A paused container goes on to be killed, and may take its command in that instant.
            return f"killed just after its command had begun: {self._killed_because}"
        if ended.exit_code == 137 and self._memory_limit_bytes is not None:
            # Engines miss the kernel's out-of-memory event of a container that has already ended.
            limit = format_size(self._memory_limit_bytes)
            return f"exit code 137 (killed by SIGKILL; perhaps for its memory limit of {limit})"
        if ended.exit_code == 127:
            return "exit code 127 (a command was not found, or the image has no /bin/sh)"
        return f"exit code {ended.exit_code}"

    def artifacts(self) -> Generator[bytes, None, None] | None:
        """Return the artifacts as a tar; see ``Runner.artifacts``."""
        return self._runner.artifacts(self.container_id)

    def read_file(self, path: str, max_bytes: int) -> bytes | None:
        """Return the content of a file; see ``Runner.read_file``."""
        return self._insistently(lambda: self._runner.read_file(self.container_id, path, max_bytes))

    def has_path(self, path: str) -> bool:
        """Return whether a path exists."""
        return self._insistently(lambda: self._runner.has_path(self.container_id, path))

    def _insistently(self, call: Callable[[], T]) -> T:
        """Return the result of ``call``, repeated while the engine is unreachable, or after some failures."""
        for _ in range(_COPY_TRIES - 1):
            try:
                return call()
            except EngineUnavailable as exc:
                log.warning("asking the engine again: %s", exc, extra=self._log_fields)
                self._patiently.rest()
                self._patiently(self.check_engine)
        return call()

    def remove(self) -> None:
        """Remove the containers of the attempt and its services later; if that fails a sweep does it."""
        for container_id in self._services():
            self._background.remove(container_id, self._log_fields)
        if self._container_id is not None:
            self._background.remove(self._container_id, self._log_fields)

    def _out_of_memory(self) -> str:
        limit_bytes = self._memory_limit_bytes
        limit = "" if limit_bytes is None else f" (limit {format_size(limit_bytes)})"
        return f"killed: out of memory{limit}"


def create_with_image(
    runner: Runner,
    image: str,
    create: Callable[[], str],
    *,
    pull: str,
    progress: Callable[[str], None],
    pulled: Callable[[str], None],
    check: Callable[[], None],
) -> str:
    """Create a container and return its id; pull its image first if required.

    ``progress`` gets lines for the job's log, ``pulled`` the id of an image that was missing; ``check``
    raises to give up. Raises ``JobFailed`` if the image cannot be had.
    """
    check()
    if pull == "always":
        runner.pull(image, progress, check)
        check()
    try:
        # Checking for the image first would cost every job a call that only the first one needs.
        return create()
    except ImageMissing as exc:
        if pull == "never":
            raise JobFailed(f"image not found: {image} is not here, and --pull is never") from exc
    pulled(runner.pull(image, progress, check))
    check()
    try:
        return create()
    except ImageMissing as exc:
        raise JobFailed(f"image not found: {image}") from exc


def quoted_output(printed: bytes) -> str:
    """Return the output before an acknowledgement as the end of a sentence."""
    words = " ".join(printed.decode(errors="replace").split())[:500]
    return f", but said: {words}" if words else ""


def gone_because(exc: ContainerGone) -> str:
    """Return a phrase that says why a container, or its command, is gone."""
    if isinstance(exc, ContainerRestarted):
        return "its container was started again (docker restart, or a restart policy that somebody gave it)"
    return "somebody removed its container"


def _progress_of(adopted: OpenAttempt) -> Progress:
    if adopted.started_at_ms is not None:
        return Progress.STARTED
    return Progress.PREPARING if adopted.handing_over_at_ms is None else Progress.HANDING_OVER
