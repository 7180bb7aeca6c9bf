"""Following the status changes of jobs."""

from collections.abc import Generator

from reactorcide.domain.accounts import User
from reactorcide.domain.jobs import JobEvent
from reactorcide.jobs import JobContext
from reactorcide.signals import ANY_JOB

_IDLE_S = 1.0
_PAGE = 100


def last_id(context: JobContext) -> int:
    """Return the id of the last status change up to now."""
    return context.store.last_event_id()


def follow(context: JobContext, user: User, after: int) -> Generator[JobEvent | None, None, None]:
    """Yield the status changes after an id, of the jobs that ``user`` may see, as they come.

    Yields ``None`` about once a second while nothing happens. Ends when the service stops.
    """
    user_id = None if user.is_admin else user.user_id
    position = after
    with context.signals.watching(ANY_JOB) as changed:
        while not context.signals.closed:
            changed.clear()
            # Asked first: whatever else is up to there is somebody else's, and not looked at again.
            last = context.store.last_event_id()
            events = context.store.events(user_id, after=position, limit=_PAGE)
            for event in events:
                yield event
                position = event.event_id
            if len(events) == _PAGE:
                continue
            position = max(position, last)
            if not changed.wait(_IDLE_S):
                yield None
