"""Shortened ids: a unique prefix of an id stands for its job or run."""

from collections.abc import Callable, Sequence

from reactorcide.domain.accounts import User
from reactorcide.domain.errors import InvalidInput
from reactorcide.jobs import StoredJobs, access
from reactorcide.lib.ids import is_beginning_of_id, is_id

_MAX_LOOKED_AT = 20
"""Maximum number of ids to read for a prefix; those of other users count, too."""


def job_id(context: StoredJobs, user: User, text: str) -> str:
    """Return the id of the job whose id begins with ``text``, among those that ``user`` may see.

    If there is none ``text`` itself is returned. Raises ``InvalidInput`` if there are several.
    """
    jobs = context.store.jobs

    def is_visible(job_id: str) -> bool:
        job = jobs.find(job_id)
        return job is not None and access.may_see_job(context, user, job)

    return _whole(text, jobs.beginning_with, is_visible, "job_id")


def run_id(context: StoredJobs, user: User, text: str) -> str:
    """Return the id of the run that ``text`` is the beginning of, as ``job_id`` does for jobs."""
    runs = context.store.runs

    def is_visible(run_id: str) -> bool:
        run = runs.find(run_id)
        return run is not None and access.may_see(context, user, run.user_id, run.project_id)

    return _whole(text, runs.beginning_with, is_visible, "run_id")


def _whole(
    text: str, beginning_with: Callable[..., Sequence[str]], is_visible: Callable[[str], bool], field: str
) -> str:
    if is_id(text) or not is_beginning_of_id(text):
        return text
    matching = beginning_with(text, limit=_MAX_LOOKED_AT)
    visible = list(filter(is_visible, matching))
    if len(visible) > 1 or len(matching) == _MAX_LOOKED_AT:
        raise InvalidInput(f"several ids begin with {text}; give more characters", field)
    return visible[0] if visible else text
