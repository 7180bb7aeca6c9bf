"""Following the status changes of jobs and runs."""

import re
from collections.abc import Generator

from reactorcide.domain.accounts import User
from reactorcide.domain.jobs import JobEvent
from reactorcide.domain.runs import RunEvent
from reactorcide.jobs import StoredJobs
from reactorcide.lib.notifier import ANY_JOB, LOOK_EVERY_S

_NUMBER = re.compile(r"\d{1,15}", re.ASCII)
_SEALED = re.compile(r"[A-Za-z0-9_-]{64}")
_PAGE = 100


def public_id(context: StoredJobs, user: User, event_id: int) -> str:
    """Return the id of a status change as ``user`` may see it.

    The numbers would reveal how many jobs other users have. The id is valid for ``user`` only, also after a
    restart.
    """
    return context.store.events.seal_id(event_id, user.user_id)


def sent_id(context: StoredJobs, user: User, public_id: str) -> int | None:
    """Return the id for a ``public_id`` of ``user``; ``None`` if it is unknown.

    Every user can send 0, the id before the first, and an admin a number, as earlier versions showed them.
    """
    if public_id == "0" or (user.is_admin and _NUMBER.fullmatch(public_id)):
        return int(public_id)
    return context.store.events.open_id(public_id, user.user_id) if _SEALED.fullmatch(public_id) else None


def last_id(context: StoredJobs) -> int:
    """Return the id of the last status change up to now."""
    return context.store.events.last_id()


def follow(
    context: StoredJobs, user: User, after: int, project_id: str | None = None
) -> Generator[JobEvent | RunEvent | None, None, None]:
    """Yield the status changes after an id, live, of the jobs and runs of ``user``.

    With ``project_id`` they are of that project; the caller has checked that ``user`` may see it.
    Yields ``None`` about once a second while nothing happens. Ends when the service stops.
    """
    user_id = None if user.is_admin else user.user_id
    position = after
    with context.notifier.watching(ANY_JOB) as changed:
        while not context.notifier.closed:
            changed.clear()
            # Read before the changes: all other changes up to this id belong to other users, and are skipped
            # next time.
            last = context.store.events.last_id()
            events = context.store.events.after(position, user_id, project_id, limit=_PAGE)
            for event in events:
                yield event
                position = event.event_id
            if len(events) == _PAGE:
                continue
            position = max(position, last)
            if not changed.wait(LOOK_EVERY_S):
                yield None
