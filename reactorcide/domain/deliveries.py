"""Deliveries: events that a forge sends to a project's webhook. Times are Unix milliseconds in UTC."""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from reactorcide.domain.forges import ForgeEvent
from reactorcide.lib.records import record

ARRIVED = "a delivery has arrived"
"""Announced when a delivery has to be processed."""
OBJECTS = "deliveries/"
"""The prefix of the objects of all deliveries."""
MAX_BODY_BYTES = 25 << 20
"""GitHub's maximum: forges never repeat a refused delivery."""

MAX_LARGE_AT_ONCE = 8
"""Large deliveries that are received at once, at most half of them from one address."""


class DeliveryStatus(StrEnum):
    """The status of a delivery."""

    WAITING = "waiting"
    """It has to be processed, or is retried."""
    STARTED = "started"
    """It has started runs."""
    IGNORED = "ignored"
    """It starts nothing."""
    FAILED = "failed"
    """It cannot be parsed, or its runs failed at once."""


@record(kw_only=True)
class Delivery:
    """A delivery without its body, which is an object."""

    delivery_id: str
    project_id: str
    forge_delivery_id: str
    """The forge's own id, unique in the project."""
    event: str
    """The forge's name of the event."""
    headers: Mapping[str, str]
    """Names in lower case; without secrets."""
    size_bytes: int
    status: DeliveryStatus = DeliveryStatus.WAITING
    outcome: str | None = None
    """A sentence: the outcome, or the reason of the retry."""
    run_ids: tuple[str, ...] = ()
    created_at_ms: int
    due_at_ms: int | None = None
    """When it is processed next; ``None`` once it is done."""
    tried_at_ms: int | None = None
    """When it was first processed."""
    is_repeated: bool = False
    """It was redelivered by a user: it starts runs even if another delivery reports the same tag."""

    @property
    def prefix(self) -> str:
        """The prefix of its object."""
        return object_prefix(self.delivery_id)

    @property
    def object_key(self) -> str:
        """The key of its body."""
        return f"{self.prefix}body"


@record(kw_only=True)
class Outcome:
    """The final outcome of a delivery."""

    status: DeliveryStatus
    sentence: str
    run_ids: tuple[str, ...] = ()
    tag: "TagTold | None" = None
    """For a new tag, which some forges report twice."""


@record
class TagTold:
    """A new tag at a commit, and the kind of event that reported it."""

    key: str
    is_create: bool = field(default=False)

    @classmethod
    def of(cls, event: ForgeEvent) -> "TagTold | None":
        """Return the new tag that an event reports; ``None`` if it reports none."""
        return cls(f"{event.sha} {event.tag}", event.is_create) if event.tag else None


def object_prefix(delivery_id: str) -> str:
    """Return the prefix of the object of a delivery."""
    return f"{OBJECTS}{delivery_id}/"
