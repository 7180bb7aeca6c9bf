"""What can be done with jobs: one file a use case, called by the API and by the worker alike."""

from collections.abc import Callable
from dataclasses import dataclass, field

from reactorcide.corndogs.task import Corndogs
from reactorcide.domain.jobs import JobDefinition
from reactorcide.metrics import Metrics
from reactorcide.objects import ObjectStore
from reactorcide.signals import Signals
from reactorcide.store import Store


def _nothing(*_: object) -> None:
    return None


@dataclass(slots=True)
class JobContext:
    """The collaborators of every use case."""

    store: Store
    objects: ObjectStore
    signals: Signals
    metrics: Metrics
    check_source: Callable[[JobDefinition], None]
    """Raises ``InvalidInput`` unless the job's source may be used here."""
    corndogs: Corndogs = field(init=False)
    """Set when the service is made; who only looks at jobs has none."""
    instance_id: str = field(init=False)
    """Set when the service starts, from its database."""
    wake_worker: Callable[[], None] = field(default=_nothing)
    """Tells the embedded worker, where there is one, that there is something to do."""
    stop_attempt: Callable[[str], None] = field(default=_nothing)
    """Tells the embedded worker that a job it may be running is cancelled."""
