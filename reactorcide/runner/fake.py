"""A ``Runner`` without an engine, for tests of what is above it.

It keeps to the protocol and really holds its "containers", so that a forgotten one shows. A command is
a line of steps: ``print TEXT``, ``fill BYTES`` of the disk, ``hang``, ``exit CODE``, and ``deaf`` to ignore
SIGTERM from then on, ``write PATH TEXT`` for a file that has nothing but this text.
"""

import threading
from collections.abc import Callable, Collection, Generator, Iterator, Sequence

from reactorcide.domain.errors import EngineUnavailable, JobFailed
from reactorcide.runner import (
    AttachedOutput,
    ContainerGone,
    ContainerInfo,
    ContainerRestarted,
    ContainerSpec,
    Exit,
    ImageFacts,
    ImageMissing,
    Output,
    OutputChunk,
    ServiceSpec,
    Signal,
    Started,
    WarmView,
)
from reactorcide.runner.handover import NOT_HANDED_OVER


class FakeContainer:
    """A command that runs step by step while its output is read."""

    def __init__(self, container_id: str, spec: ContainerSpec) -> None:
        self.container_id = container_id
        self.spec = spec
        self.changed = threading.Condition()
        self.printed = b""
        self.lives = 0
        self.is_handed_over = False
        self.ended: Exit | None = None
        self.put: list[bytes] = []
        self.disk_bytes = 0
        self.files: dict[str, bytes] = {}
        self._deaf = False

    def run(self) -> None:
        """Run the steps up to the first that hangs."""
        with self.changed:
            self.is_handed_over = True
            for step in self.spec.command.split(";"):
                verb, _, rest = step.strip().partition(" ")
                if verb == "print":
                    self.printed += rest.encode() + b"\n"
                elif verb == "deaf":
                    self._deaf = True
                elif verb == "fill":
                    self.disk_bytes = int(rest)
                elif verb == "write":
                    path, _, text = rest.partition(" ")
                    self.files[path] = text.encode()
                elif verb == "hang":
                    break
                elif verb == "exit":
                    self.ended = Exit(int(rest), oom_killed=False)
                    break
            else:
                self.ended = Exit(0, oom_killed=False)
            self.changed.notify_all()

    @property
    def started_at(self) -> str:
        """Which life this is, as an engine tells it."""
        return f"life {self.lives}"

    def start(self) -> None:
        """Begin a life, in which nothing runs before it is handed over."""
        with self.changed:
            self.lives += 1
            self.ended = None
            self.changed.notify_all()

    def lose_input(self) -> None:
        """End, unless the command was handed over."""
        with self.changed:
            if self.lives and self.ended is None and not self.is_handed_over:
                self.ended = Exit(NOT_HANDED_OVER, oom_killed=False)
                self.changed.notify_all()

    def receive(self, signal: Signal) -> None:
        """End, unless the command is deaf to it."""
        with self.changed:
            if self.ended is None and (signal == "KILL" or not self._deaf):
                self.ended = Exit(137 if signal == "KILL" else 143, oom_killed=False)
                self.changed.notify_all()


class FakeRunner:
    """See the module. ``available`` says whether the engine answers; ``images`` which ones it has.

    Where ``idle`` is set it is called, with seconds, instead of waiting for a command that hangs. Where
    ``deaf`` is true, commands do not arrive.
    """

    def __init__(self, images: tuple[str, ...] = ("alpine:latest",)) -> None:
        self.available = True
        self.images = set(images)
        self.pullable: set[str] = set()
        self.containers: dict[str, FakeContainer] = {}
        self.created: list[ContainerSpec] = []
        self.started: list[ContainerSpec] = []
        self.idle: Callable[[float], None] | None = None
        self.deaf = False

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

    def attach(self, container_id: str) -> AttachedOutput:
        """See ``Runner.attach``."""
        return _FakeAttachedOutput(self, self._get(container_id))

    def reread(self, container_id: str, *, was_handed_over: bool = True) -> Output:
        """See ``Runner.reread``."""
        return _FakeOutput(self, self._get(container_id))

    def is_acknowledged(self, container_id: str) -> bool:
        """See ``Runner.is_acknowledged``."""
        return self._get(container_id).is_handed_over

    def is_paused(self, container_id: str) -> bool:
        """See ``Runner.is_paused``."""
        self._get(container_id)
        return False

    def start(self, container_id: str) -> Started:
        """See ``Runner.start``."""
        container = self._get(container_id)
        container.start()
        return Started(container.started_at, None)

    def run(self, container: FakeContainer) -> None:
        """Take a command that was handed over, and run it."""
        if not self.deaf:
            self.started.append(container.spec)
            container.run()

    def signal(self, container_id: str, signal: Signal) -> None:
        """See ``Runner.signal``."""
        self.check()
        container = self.containers.get(container_id)
        if container is not None:
            container.receive(signal)

    def wait(self, container_id: str, timeout_s: float, started_at: str | None) -> Exit | None:
        """See ``Runner.wait``."""
        container = self._get(container_id)
        with container.changed:
            if self.idle is None:
                container.changed.wait_for(lambda: container.ended is not None, timeout_s)
            if started_at not in (None, container.started_at):
                raise ContainerRestarted(container_id)
            return container.ended

    def copy_bytes(self, container_id: str) -> int | None:
        """See ``Runner.copy_bytes``."""
        self._get(container_id)
        return None

    def disk_bytes(self, container_id: str) -> int | None:
        """See ``Runner.disk_bytes``."""
        container = self._get(container_id)
        with container.changed:
            return container.disk_bytes if container.lives and container.ended is None else None

    def artifacts(self, container_id: str) -> Generator[bytes, None, None] | None:
        """See ``Runner.artifacts``; a fake command leaves none."""
        self.check()
        return None

    def has_path(self, container_id: str, path: str) -> bool:
        """See ``Runner.has_path``."""
        return path in self._get(container_id).files

    def read_file(self, container_id: str, path: str, max_bytes: int) -> bytes | None:
        """See ``Runner.read_file``."""
        data = self._get(container_id).files.get(path)
        if data is not None and len(data) > max_bytes:
            raise JobFailed(f"{path} is larger than {max_bytes} bytes")
        return data

    def files(self, container_id: str, path: str) -> Generator[bytes, None, None] | None:
        """See ``Runner.files``; a fake container has none."""
        self._get(container_id)
        return None

    def remove(self, container_id: str) -> None:
        """See ``Runner.remove``."""
        self.check()
        container = self.containers.pop(container_id, None)
        if container is not None:
            container.receive("KILL")

    def list(self, instance_id: str) -> list[ContainerInfo]:
        """See ``Runner.list``."""
        self.check()
        return [
            ContainerInfo(
                container.container_id,
                container.spec.job_id,
                container.spec.attempt,
                service=None,
                is_named=True,
            )
            for container in self.containers.values()
            if container.spec.instance_id == instance_id
        ]

    def create_service(self, spec: ServiceSpec) -> str:
        """See ``Runner.create_service``; there are no services here."""
        raise JobFailed("the fake engine has no services")

    def start_service(self, container_id: str) -> None:
        """See ``Runner.start_service``."""
        raise ContainerGone(container_id)

    def image_facts(self, image: str) -> ImageFacts:
        """See ``Runner.image_facts``."""
        return ImageFacts(None, frozenset())

    def begin_check(self, container_id: str, command: Sequence[str]) -> str | None:
        """See ``Runner.begin_check``."""
        return None

    def check_result(self, check_id: str) -> int | None:
        """See ``Runner.check_result``."""
        return None

    def exit_now(self, container_id: str) -> Exit | None:
        """See ``Runner.exit_now``."""
        return self._get(container_id).ended

    def output_end(self, container_id: str, max_bytes: int) -> bytes:
        """See ``Runner.output_end``."""
        return self._get(container_id).printed[-max_bytes:]

    def keep_warm(self, may_create: Callable[[], bool]) -> None:
        """See ``Runner.keep_warm``; no fake container waits for a job."""

    def drop_warm(self) -> None:
        """See ``Runner.drop_warm``."""

    def unused_warm(self, instance_id: str) -> frozenset[str]:
        """See ``Runner.unused_warm``."""
        return frozenset()

    def warm_view(self) -> WarmView:
        """See ``Runner.warm_view``."""
        return WarmView(0, 0, 0, len(self.created))

    def remove_stray_volumes(
        self, instance_id: str, needed: Callable[[], Collection[tuple[str, int]]]
    ) -> None:
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
    launcher_output = b""
    unacknowledged_bytes = 0

    def __init__(self, runner: FakeRunner, container: FakeContainer) -> None:
        self._runner = runner
        self._container = container
        self._idle = runner.idle
        self._position = 0
        self._woken = False

    @property
    def acknowledged(self) -> bool:
        """See ``Output.acknowledged``."""
        return self._container.is_handed_over

    def read(self, timeout_s: float) -> list[OutputChunk] | None:
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


class _FakeAttachedOutput(_FakeOutput):
    is_local = True

    @property
    def is_sent(self) -> bool:
        """See ``AttachedOutput.is_sent``."""
        return True

    def hand_over(self, spec: ContainerSpec, started: Started) -> None:
        """See ``AttachedOutput.hand_over``."""
        self._runner.run(self._container)

    def close(self) -> None:
        """See ``Output.close``; a container that waits for its command ends with its input."""
        self._container.lose_input()
