"""Deliveries: what a forge sends to a project's webhook. Times are Unix milliseconds in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reactorcide.domain.forges import ForgeEvent

ARRIVED = "a delivery has arrived"
"""Announced with every delivery that is to be processed."""
OBJECTS = "deliveries/"
"""The prefix of the objects of all deliveries."""
MAX_BODY_BYTES = 25 << 20
"""As large as GitHub's become: what is refused is never sent again."""

MAX_LARGE_AT_ONCE = 8
"""Large deliveries that are received at once, at most half of them from one address."""


class DeliveryStatus(StrEnum):
    """What became of a delivery."""

    WAITING = "waiting"
    """It is still to be processed, or is tried again."""
    STARTED = "started"
    """It has started runs."""
    IGNORED = "ignored"
    """It starts nothing."""
    FAILED = "failed"
    """It cannot be read, or what it has started failed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery without its body, which is an object."""

    delivery_id: str
    project_id: str
    forge_delivery_id: str
    """The forge's own, unique in the project."""
    event: str
    """What the forge calls the event."""
    headers: Mapping[str, str]
    """In lower case, without what is secret."""
    size_bytes: int
    status: DeliveryStatus = DeliveryStatus.WAITING
    outcome: str | None = None
    """What became of it, or why it is tried again, in a sentence."""
    run_ids: tuple[str, ...] = ()
    created_at_ms: int
    due_at_ms: int | None = None
    """When it is processed next; ``None`` once that is over."""
    tried_at_ms: int | None = None
    """When it was first worked on."""
    is_repeated: bool = False
    """Somebody had it processed again: then it starts runs though another delivery tells the same."""

    @property
    def prefix(self) -> str:
        """The prefix of its object."""
        return object_prefix(self.delivery_id)

    @property
    def object_key(self) -> str:
        """The key of its body."""
        return f"{self.prefix}body"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a delivery, once that is certain."""

    status: DeliveryStatus
    sentence: str
    run_ids: tuple[str, ...] = ()
    tag: "TagTold | None" = None
    """For a new tag, which some forges tell twice."""


@dataclass(frozen=True, slots=True)
class TagTold:
    """That a tag is at a commit, and how the forge has told that."""

    key: str
    is_create: bool = field(default=False)

    @classmethod
    def of(cls, event: ForgeEvent) -> "TagTold | None":
        """Return what an event tells of a tag; ``None`` if it tells nothing of one."""
        return cls(f"{event.sha} {event.tag}", event.is_create) if event.tag else None


def object_prefix(delivery_id: str) -> str:
    """Return the prefix of the object of a delivery."""
    return f"{OBJECTS}{delivery_id}/"
