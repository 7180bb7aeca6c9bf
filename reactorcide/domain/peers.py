"""The services that share one database: each has an id, and some work is done by one of them at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from reactorcide.lib.records import record


@record(kw_only=True)
class Peer:
    """A service on a database, as it reports itself there."""

    service_id: str
    session_id: str
    """A value of its process."""
    host: str
    version: str
    corndogs_address: str | None
    """``None`` if it has an embedded queue."""
    beat: int
    """Grows as long as it lives."""
    worker: str
    """What its own worker reports, as JSON."""


class Turns(Protocol):
    """Work that one of the services does at a time, by its kind and a key such as a project's id.

    Thread-safe. A service that is gone loses its turns to the others within half a minute.
    """

    def others(self, kind: str) -> list[str]:
        """Return the keys whose turn another service has. Raises ``StoreError``."""

    def take(self, kind: str, key: str) -> bool:
        """Take the turn of a key, and return whether it is this service's now. Raises ``StoreError``."""

    def give_back(self, kind: str, key: str) -> None:
        """Give a turn back; safe to repeat. Raises ``StoreError``; then this service keeps it."""


class Alone:
    """The ``Turns`` of a service that shares its database with no other."""

    def others(self, kind: str) -> list[str]:
        """There are no others."""
        return []

    def take(self, kind: str, key: str) -> bool:
        """Every turn is its own."""
        return True

    def give_back(self, kind: str, key: str) -> None:
        """Nobody waits for it."""


@contextmanager
def turn(turns: Turns, kind: str) -> Iterator[bool]:
    """Have the only turn of a kind during the body, if it can be had now: yields whether that is so."""
    is_taken = turns.take(kind, "")
    try:
        yield is_taken
    finally:
        if is_taken:
            turns.give_back(kind, "")
