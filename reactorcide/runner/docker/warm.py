"""A pool of warm containers: created, attached to and started before the job is there that gets one.

Each is used once. Until then it waits for a command, as every container of a job does between its start and
the handover, and has nothing of any job. What a container gets only with the handover is not part of its
shape; a job gets a warm one of exactly its shape, or a new one.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Protocol

from reactorcide import crashpoints
from reactorcide.domain.errors import InfrastructureError, JobFailed
from reactorcide.lib.records import record
from reactorcide.runner import (
    AttachedOutput,
    ContainerGone,
    ContainerSpec,
    ImageMissing,
    Started,
    WarmView,
    handover,
)

_MAX_AGE_S = 600.0
"""For which a container waits, and containers of a shape are created after the end of its last job."""
_RETRY_S = 15.0
"""After the engine could not create one."""
_MIN_MEMORY_BYTES = 256 << 20
"""Of memory that this host has left; with less, none is created."""
_RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
"""What the engine copies into a container at its start."""


class Engine(Protocol):
    """What the pool needs of the runner. The methods that ``Runner`` has are described there."""

    def keeps_connections(self) -> bool:
        """Return whether a connection that waits for minutes is there afterwards, or its end is noticed."""

    def image_id(self, image: str) -> str | None:
        """Return the id that an image name has now; ``None`` if there is no such image."""

    def create_warm(self, shape: ContainerSpec) -> str:
        """Create a container of that shape for no job yet, and return its id."""

    def is_directory(self, container_id: str, path: str) -> bool:
        """Return whether a path of a container is a directory, and no link to one."""

    def image_of(self, container_id: str) -> str:
        """Return the id of a container's image."""

    def rename(self, container_id: str, name: str) -> None:
        """Give a container another name; raises ``ContainerGone``."""

    def attach(self, container_id: str) -> AttachedOutput: ...

    def start(self, container_id: str) -> Started: ...

    def owner(self, container_id: str) -> tuple[int, int]: ...

    def remove(self, container_id: str) -> None: ...


@record
class WarmContainer:
    """A container that waits for its command, or has been taken by an attempt."""

    container_id: str
    shape: ContainerSpec
    image_id: str
    resolvers: bytes
    output: AttachedOutput
    started: Started
    owner: tuple[int, int]
    ready_at: float

    def is_alive(self) -> bool:
        """Return whether it goes on waiting for its command."""
        # What its shell prints meanwhile, a warning perhaps, must not fill the connection.
        has_ended = self.output.read(0) is None
        is_flooding = self.output.unacknowledged_bytes > handover.MAX_UNACKNOWLEDGED_BYTES
        return not (has_ended or is_flooding or self.output.acknowledged)


class WarmPool:
    """At most ``size`` warm containers, of the shapes that the last ``size`` jobs had. Thread-safe.

    ``keep`` is for one thread, in which nothing is swept at the same time.
    """

    def __init__(self, size: int, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._size = size
        self._recent: deque[tuple[ContainerSpec, float]] = deque(maxlen=size)
        """The shapes of the last jobs, and when each has ended."""
        self._waiting: list[WarmContainer] = []
        self._handed_out: dict[str, WarmContainer] = {}
        self._surplus_ids: list[str] = []
        """Containers that are to be removed."""
        self._own: set[str] = set()
        """All of this process that were created here, until they are removed."""
        self._in_use: dict[str, ContainerSpec] = {}
        """The shapes of the containers of jobs, warm or not."""
        self._retry_at = 0.0
        self._jobs_warm = self._jobs_cold = 0

    def view(self) -> WarmView:
        """Return what there is, and what has been used."""
        with self._lock:
            return WarmView(self._size, len(self._waiting), self._jobs_warm, self._jobs_cold)

    # --- the containers of jobs ----------------------------------------------------------------

    def take(self, spec: ContainerSpec, name: str) -> str | None:
        """Return the id of a container that waits for a command like ``spec``, under its new name.

        ``None`` if there is none.
        """
        shape = _shape(spec)
        while shape is not None and (warm := self._pop(shape)) is not None:
            fits = False
            try:
                fits = self._fits(warm, name)
            finally:
                with self._lock:
                    if fits:
                        self._handed_out[warm.container_id] = warm
                        self._in_use[warm.container_id] = shape
                        self._jobs_warm += 1
                    else:
                        self._give_up(warm)
            if fits:
                crashpoints.reached("warm-container-taken")
                return warm.container_id
        return None

    def created(self, spec: ContainerSpec, container_id: str) -> None:
        """Record the container that was created for a job because none waited."""
        shape = _shape(spec)
        with self._lock:
            self._jobs_cold += 1
            if shape is not None:
                self._in_use[container_id] = shape

    def taken(self, container_id: str) -> WarmContainer | None:
        """Return a container if it is one that was taken from here."""
        return self._handed_out.get(container_id)

    def removed(self, container_id: str) -> None:
        """Record that a container, of whatever kind, is about to be removed; safe to repeat."""
        with self._lock:
            self._own.discard(container_id)
            shape = self._in_use.pop(container_id, None)
            if shape is not None:
                self._recent.append((shape, monotonic()))
            warm = self._handed_out.pop(container_id, None)
        if warm is not None:
            warm.output.close()

    def owns(self, container_id: str) -> bool:
        """Return whether a container was created here, and is not to be removed."""
        with self._lock:
            return container_id in self._own

    # --- the containers that wait --------------------------------------------------------------

    def keep(self, may_create: Callable[[], bool]) -> None:
        """See ``Runner.keep_warm``."""
        if not self._size:
            return
        self._remove_surplus()
        while monotonic() >= self._retry_at and (shape := self._missing()) is not None:
            if not may_create() or _memory_is_low() or not self._engine.keeps_connections():
                return
            self._create(shape)

    def drop(self) -> None:
        """See ``Runner.drop_warm``."""
        with self._lock:
            self._size = 0
        self._remove_surplus()

    def _fits(self, warm: WarmContainer, name: str) -> bool:
        """Name a container for its job, unless a new one would be another by now."""
        if self._engine.image_id(warm.shape.image) != warm.image_id or _resolvers() != warm.resolvers:
            return False
        try:
            self._engine.rename(warm.container_id, name)
        except ContainerGone:
            return False
        return True

    def _pop(self, shape: ContainerSpec) -> WarmContainer | None:
        """Take out one that fits, as far as is known here."""
        with self._lock:
            for warm in self._waiting:
                if warm.shape == shape and monotonic() < warm.ready_at + _MAX_AGE_S and warm.is_alive():
                    self._waiting.remove(warm)
                    return warm
        return None

    def _shapes_to_keep(self) -> list[ContainerSpec]:
        """Return the shapes that need a warm container; called with the lock."""
        since = monotonic() - _MAX_AGE_S
        return [shape for shape, ended_at in self._recent if ended_at > since] if self._size else []

    def _missing(self) -> ContainerSpec | None:
        """Return the shape to create a container of."""
        with self._lock:
            shapes = self._shapes_to_keep()
            for warm in self._waiting:
                shapes.remove(warm.shape)
            return shapes[-1] if shapes else None

    def _surplus(self) -> list[str]:
        """Take out the containers to remove: too old, dead, or of a shape that is no longer needed."""
        with self._lock:
            shapes, remaining = self._shapes_to_keep(), []
            for warm in self._waiting:
                if not warm.is_alive():
                    # Not again before its next job: its image may have a shell that always ends.
                    self._forget(warm.shape)
                    shapes = [shape for shape in shapes if shape != warm.shape]
                if warm.shape in shapes and monotonic() < warm.ready_at + _MAX_AGE_S:
                    shapes.remove(warm.shape)
                    remaining.append(warm)
                else:
                    self._give_up(warm)
            self._waiting = remaining
            surplus, self._surplus_ids = self._surplus_ids, []
            # Where their removal fails, a later sweep finds them.
            self._own.difference_update(surplus)
            return surplus

    def _give_up(self, warm: WarmContainer) -> None:
        """Have a container removed; called with the lock."""
        warm.output.close()
        self._surplus_ids.append(warm.container_id)

    def _remove_surplus(self) -> None:
        for container_id in self._surplus():
            self._engine.remove(container_id)

    def _forget(self, shape: ContainerSpec) -> None:
        """Create none of that shape before its next job; called with the lock."""
        others = [item for item in self._recent if item[0] != shape]
        self._recent.clear()
        self._recent.extend(others)

    def _create(self, shape: ContainerSpec) -> None:
        try:
            self._have_one_wait(shape)
        except (JobFailed, ImageMissing, ContainerGone):
            # Its next job will say why.
            with self._lock:
                self._forget(shape)
        except InfrastructureError:
            self._retry_at = monotonic() + _RETRY_S
            raise

    def _have_one_wait(self, shape: ContainerSpec) -> None:
        resolvers = _resolvers()
        container_id = self._engine.create_warm(shape)
        with self._lock:
            self._own.add(container_id)
            # Until it waits.
            self._surplus_ids.append(container_id)
        crashpoints.reached("warm-container-created")
        if not self._engine.is_directory(container_id, shape.working_dir):
            # A source that is put in later would replace it.
            raise JobFailed(f"{shape.working_dir} of the image is not a directory")
        output = self._engine.attach(container_id)
        try:
            started = self._engine.start(container_id)
            owner = self._engine.owner(container_id)
            image_id = self._engine.image_of(container_id)
        except BaseException:
            output.close()
            raise
        with self._lock:
            self._surplus_ids.remove(container_id)
            self._waiting.append(
                WarmContainer(container_id, shape, image_id, resolvers, output, started, owner, monotonic())
            )
        crashpoints.reached("warm-container-ready")


def _shape(spec: ContainerSpec) -> ContainerSpec | None:
    """Return ``spec`` without all that a container gets only with its command; ``None`` if it needs more."""
    if not spec.can_be_warm or spec.host_names or handover.configured(spec.env):
        return None
    return replace(spec, job_id="", attempt=0, command="", env={})


def _resolvers() -> bytes:
    """Return how this host resolves names: a laptop may have changed its network since a container began."""
    contents = b""
    for path in _RESOLVERS:
        try:
            contents += Path(path).read_bytes()
        except OSError:
            contents += b"(none)"
    return contents


def _memory_is_low() -> bool:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        # No Linux: then the engine has a machine of its own.
        return False
    available = next((line.split() for line in lines if line.startswith("MemAvailable:")), None)
    return available is not None and int(available[1]) << 10 < _MIN_MEMORY_BYTES
