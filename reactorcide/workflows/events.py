"""Triggers: events, and whether they start a workflow or a job."""

from collections.abc import Collection

from reactorcide.domain.events import EventName
from reactorcide.lib.globs import Globs
from reactorcide.lib.records import record

SHORT_NAMES: dict[str, tuple[EventName, ...]] = {
    "pull_request": (EventName.PULL_REQUEST_OPENED, EventName.PULL_REQUEST_UPDATED),
    "tag": (EventName.TAG_CREATED,),
}
"""Names in ``on`` that stand for others."""


@record(kw_only=True)
class Event:
    """An event; ``${event.…}`` can use its fields, which are empty if the event does not have them."""

    name: EventName
    branch: str = ""
    """Of a pull request, the head's."""
    tag: str = ""
    sha: str = ""
    ref: str = ""
    actor: str = ""
    number: str = ""
    """Of a pull request."""
    base_branch: str = ""
    """Of a pull request."""
    message: str = ""
    """Of the commit."""
    project: str = ""


@record
class Trigger:
    """The events that start a workflow or a job; ``None`` means any."""

    events: tuple[EventName, ...] | None = None
    branches: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None

    def refusal(self, event: Event) -> str | None:
        """Return a phrase that says why the event does not start it; ``None`` if it does."""
        if self.events is not None and event.name not in self.events:
            return f"it starts on {', '.join(self.events)}, not on {event.name}"
        kind, name, globs = "branch", event.branch, self.branches
        if event.name is EventName.TAG_CREATED:
            kind, name, globs = "tag", event.tag, self.tags if self.tags is not None else self.branches
        elif event.name.is_pull_request:
            kind, name = "base branch", event.base_branch
        if globs is not None and not Globs(globs).match(name):
            return f"the {kind} {name or '(none)'} matches none of {', '.join(globs)}"
        return None


@record
class Paths:
    """The changed files that count; ``None`` includes all."""

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()

    def refusal(self, changed: Collection[str] | None) -> str | None:
        """Return a phrase that says why no changed file matches; ``None`` if one does, or they are unknown.

        Costs time linear in the files.
        """
        if changed is None:
            return None
        included = None if self.include is None else Globs(self.include)
        excluded = Globs(self.exclude)
        for path in changed:
            if (included is None or included.match(path)) and not excluded.match(path):
                return None
        return f"none of the {len(changed)} changed files is one that its paths name"


ANY_EVENT = Trigger()
ANY_PATHS = Paths()
