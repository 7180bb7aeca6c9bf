"""A ``Runner`` without an engine, for tests of what is above it.

It keeps to the protocol and really holds its "containers", so that a forgotten one shows. A command is
a line of steps: ``print TEXT``, ``fill BYTES`` of the disk, ``hang``, ``exit CODE``, and ``deaf`` to ignore
SIGTERM from then on.
"""

import threading
from collections.abc import Callable, Generator, Iterator

from reactorcide.domain.errors import EngineUnavailable, JobFailed
from reactorcide.runner import (
    ContainerGone,
    ContainerSpec,
    Exit,
    Found,
    ImageMissing,
    Output,
    Printed,
    Signal,
)


class FakeContainer:
    """A command that runs step by step while its output is read."""

    def __init__(self, container_id: str, spec: ContainerSpec) -> None:
        self.container_id = container_id
        self.spec = spec
        self.changed = threading.Condition()
        self.printed = b""
        self.started = False
        self.ended: Exit | None = None
        self.put: list[bytes] = []
        self.disk_bytes = 0
        self._deaf = False

    def run(self) -> None:
        """Run the steps up to the first that hangs."""
        with self.changed:
            self.started = True
            for step in self.spec.command.split(";"):
                verb, _, rest = step.strip().partition(" ")
                if verb == "print":
                    self.printed += rest.encode() + b"\n"
                elif verb == "deaf":
                    self._deaf = True
                elif verb == "fill":
                    self.disk_bytes = int(rest)
                elif verb == "hang":
                    break
                elif verb == "exit":
                    self.ended = Exit(int(rest), oom_killed=False)
                    break
            else:
                self.ended = Exit(0, oom_killed=False)
            self.changed.notify_all()

    def receive(self, signal: Signal) -> None:
        """End, unless the command is deaf to it."""
        with self.changed:
            if self.ended is None and (signal == "KILL" or not self._deaf):
                self.ended = Exit(137 if signal == "KILL" else 143, oom_killed=False)
                self.changed.notify_all()


class FakeRunner:
    """See the module. ``available`` says whether the engine answers; ``images`` which ones it has.

    Where ``idle`` is set it is called, with seconds, instead of waiting for a command that hangs.
    """

    def __init__(self, images: tuple[str, ...] = ("alpine:latest",)) -> None:
        self.available = True
        self.images = set(images)
        self.pullable: set[str] = set()
        self.containers: dict[str, FakeContainer] = {}
        self.created: list[ContainerSpec] = []
        self.started: list[ContainerSpec] = []
        self.idle: Callable[[float], None] | None = None

    def check(self) -> None:
        """See ``Runner.check``."""
        if not self.available:
            raise EngineUnavailable("the Docker Engine does not answer; is it running?")

    def pull(self, image: str, progress: Callable[[str], None], check: Callable[[], None]) -> str:
        """See ``Runner.pull``."""
        self.check()
        check()
        progress(f"pulling image {image}")
        if image not in self.pullable:
            raise JobFailed(f"image not found: {image}")
        self.images.add(image)
        return f"id of {image}"

    def create(self, spec: ContainerSpec) -> str:
        """See ``Runner.create``."""
        self.check()
        if spec.image not in self.images:
            raise ImageMissing(spec.image)
        container_id = f"{spec.job_id}-{spec.attempt}"
        if container_id in self.containers:
            raise JobFailed(f"the name {container_id} is in use")
        self.containers[container_id] = FakeContainer(container_id, spec)
        self.created.append(spec)
        return container_id

    def owner(self, container_id: str) -> tuple[int, int]:
        """See ``Runner.owner``."""
        self._get(container_id)
        return 0, 0

    def put(self, container_id: str, tar: Iterator[bytes]) -> None:
        """See ``Runner.put``."""
        self._get(container_id).put.extend(tar)

    def attach(self, container_id: str) -> Output:
        """See ``Runner.attach``."""
        return _FakeOutput(self._get(container_id), self.idle)

    def reread(self, container_id: str) -> Output:
        """See ``Runner.reread``."""
        return _FakeOutput(self._get(container_id), self.idle)

    def start(self, container_id: str) -> None:
        """See ``Runner.start``."""
        container = self._get(container_id)
        self.started.append(container.spec)
        container.run()

    def signal(self, container_id: str, signal: Signal) -> None:
        """See ``Runner.signal``."""
        self.check()
        container = self.containers.get(container_id)
        if container is not None:
            container.receive(signal)

    def wait(self, container_id: str, timeout_s: float) -> Exit | None:
        """See ``Runner.wait``."""
        container = self._get(container_id)
        with container.changed:
            if self.idle is None:
                container.changed.wait_for(lambda: container.ended is not None, timeout_s)
            return container.ended

    def disk_bytes(self, container_id: str) -> int | None:
        """See ``Runner.disk_bytes``."""
        container = self._get(container_id)
        with container.changed:
            return container.disk_bytes if container.started and container.ended is None else None

    def artifacts(self, container_id: str) -> Generator[bytes, None, None] | None:
        """See ``Runner.artifacts``; a fake command leaves none."""
        self.check()
        return None

    def remove(self, container_id: str) -> None:
        """See ``Runner.remove``."""
        self.check()
        container = self.containers.pop(container_id, None)
        if container is not None:
            container.receive("KILL")

    def list(self, instance_id: str) -> list[Found]:
        """See ``Runner.list``."""
        self.check()
        return [
            Found(container.container_id, container.spec.job_id, container.spec.attempt, container.started)
            for container in self.containers.values()
            if container.spec.instance_id == instance_id
        ]

    def remove_stray_volumes(self, instance_id: str) -> None:
        """See ``Runner.remove_stray_volumes``; a fake container has none."""
        self.check()

    def remove_image(self, image: str, image_id: str) -> bool:
        """See ``Runner.remove_image``."""
        self.check()
        if any(container.spec.image == image for container in list(self.containers.values())):
            return False
        if image_id == f"id of {image}":
            self.images.discard(image)
        return True

    def close(self) -> None:
        """See ``Runner.close``."""

    def _get(self, container_id: str) -> FakeContainer:
        self.check()
        try:
            return self.containers[container_id]
        except KeyError as exc:
            raise ContainerGone(container_id) from exc


class _FakeOutput:
    def __init__(self, container: FakeContainer, idle: Callable[[float], None] | None) -> None:
        self._container = container
        self._idle = idle
        self._position = 0
        self._woken = False

    def read(self, timeout_s: float) -> Printed | None:
        """See ``Output.read``."""
        container = self._container
        with container.changed:

            def is_over() -> bool:
                return self._woken or container.ended is not None or len(container.printed) > self._position

            if self._idle is None:
                container.changed.wait_for(is_over, max(0.0, timeout_s))
            elif not is_over():
                self._idle(timeout_s)
            self._woken = False
            data = container.printed[self._position :]
            self._position += len(data)
            if not data and container.ended is not None:
                return None
            return [(1, data)] if data else []

    def wake(self) -> None:
        """See ``Output.wake``."""
        with self._container.changed:
            self._woken = True
            self._container.changed.notify_all()

    def close(self) -> None:
        """See ``Output.close``."""
