"""Reading the outputs of a job of a run, for the jobs that need it."""

from collections.abc import Callable

from reactorcide.domain.errors import JobFailed
from reactorcide.domain.jobs import OUTPUT_FILE, Job
from reactorcide.domain.outputs import MAX_OUTPUT_BYTES, Outputs
from reactorcide.domain.secrets import secrets_of
from reactorcide.logs.masking import Masker
from reactorcide.worker.attempt.container import Container
from reactorcide.workflows.outputs import NotOutputs, parse

_TRIGGERS_FILE = "/job/triggers.json"
"""The file in which a job of the original Reactorcide writes jobs to start."""


def read_outputs(job: Job, container: Container, say: Callable[[str], None]) -> Outputs | None:
    """Return the outputs of the job's command; ``None`` if there are none.

    ``say`` gets a line for the job's log. Raises ``JobFailed`` for unreadable outputs, ``EngineUnavailable``
    and ``ContainerGone``.
    """
    if container.has_path(_TRIGGERS_FILE):
        raise JobFailed(
            f"it left {_TRIGGERS_FILE}, which starts no jobs here; name them in the workflow, with needs"
        )
    data = container.read_file(OUTPUT_FILE, MAX_OUTPUT_BYTES)
    if not data:
        return None
    try:
        outputs = parse(data, _finder(job))
    except NotOutputs as exc:
        raise JobFailed(f"its outputs cannot be read: {OUTPUT_FILE} {exc}") from exc
    hidden = [key for key, value in outputs.all.items() if value is None]
    if hidden:
        more = f" and {len(hidden) - 20} more" if len(hidden) > 20 else ""
        say(f"outputs with a secret in them are not handed on: {', '.join(hidden[:20])}{more}")
    return outputs


def _finder(job: Job) -> Callable[[str], bool]:
    """Return a function that tells whether a text contains a secret of the job."""
    masker = Masker(secrets_of(job.definition))

    def has_secret(text: str) -> bool:
        data = text.encode()
        return masker.whole(data) != data

    return has_secret
