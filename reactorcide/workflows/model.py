"""The parsed content of a workflow file."""

from collections.abc import Iterator, Mapping
from dataclasses import field
from enum import StrEnum

from reactorcide.domain.services import DEFAULT_READY_TIMEOUT_S
from reactorcide.lib.records import record
from reactorcide.workflows.events import ANY_EVENT, ANY_PATHS, Paths, Trigger
from reactorcide.workflows.references import Template


class Condition(StrEnum):
    """The condition on the results of a job's needs."""

    ALL_SUCCESS = "all_success"
    """Each of them succeeded."""
    NO_FAILURE = "no_failure"
    """None of them failed; skipped ones do not count."""
    ANY_FAILED = "any_failed"
    """One of them failed, was cancelled or timed out."""
    ALWAYS = "always"
    """All of them have ended."""


class WhenFull(StrEnum):
    """What happens if a concurrency group is in use."""

    QUEUE = "queue"
    """The newcomer waits."""
    REPLACE = "replace"
    """The older one ends."""
    CANCEL = "cancel"
    """The newcomer ends."""


@record
class Concurrency:
    """A group of which one runs at a time."""

    group: Template
    when_full: WhenFull = WhenFull.QUEUE


@record
class Service:
    """A container beside the job."""

    image: Template
    environment: Mapping[str, Template] = field(default_factory=dict)
    command: str | None = None
    ready: str | None = None
    """A command that succeeds once the service can be used; ``None`` takes the image's own check."""
    ready_timeout_s: int = DEFAULT_READY_TIMEOUT_S


@record
class Cache:
    """Paths that are restored before a job and saved after it."""

    key: tuple[Template, ...]
    """Texts, and ``file:GLOB`` for a hash of files."""
    paths: tuple[str, ...]
    restore_keys: tuple[Template, ...] = ()


@record
class RunLocal:
    """Settings for local runs only."""

    user: str | None = None


@record(kw_only=True)
class Job:
    """A job, or one combination of a matrix."""

    command: str
    description: str = ""
    image: Template | None = None
    """``None`` takes the project's or the service's default."""
    shell: str = "sh"
    environment: Mapping[str, Template] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    condition: Condition = Condition.ALL_SUCCESS
    timeout_s: int | None = None
    retries: int = 0
    priority: int = 0
    queue: str | None = None
    allow_failure: bool = False
    services: Mapping[str, Service] = field(default_factory=dict)
    cache: tuple[Cache, ...] = ()
    artifacts: tuple[str, ...] | None = None
    """Globs of the artifacts to store; ``None`` stores all."""
    artifacts_from: tuple[str, ...] = ()
    cpu_limit: float | None = None
    memory_limit_bytes: int | None = None
    code_dir: str | None = None
    job_dir: str | None = None
    checkout: bool = True
    submodules: bool | None = None
    trigger: Trigger = ANY_EVENT
    paths: Paths = ANY_PATHS
    concurrency: Concurrency | None = None
    needs_builder: bool = False
    disable_run_local: bool = False
    run_local: RunLocal | None = None

    def templates(self) -> Iterator[Template]:
        """Yield the values that may contain references."""
        if self.image is not None:
            yield self.image
        yield from self.environment.values()
        for service in self.services.values():
            yield service.image
            yield from service.environment.values()
