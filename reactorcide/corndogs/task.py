"""A task of the queue, and the protocol of the queue."""

from collections.abc import Iterable
from typing import Protocol

from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable, InvalidInput
from reactorcide.lib.ids import is_id
from reactorcide.lib.records import record

DEFAULT_QUEUE = "default"
"""The queue that an empty name means."""
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""The largest request that a server accepts."""
NO_TASK = "00000000-0000-0000-0000-000000000000"
"""An id that no task has."""


@record
class Task:
    """One task as Corndogs returned it: a snapshot.

    Times are Unix nanoseconds of the server's clock. ``timeout_s`` 0 never times out. A task from the
    archive has ``completed`` or ``canceled`` in both states, and neither payload, priority nor timeout.
    Only a claim is sure to return the payload: releases after 0.3 do not show it otherwise, and then it is
    empty.
    """

    uuid: str
    queue: str
    current_state: str
    auto_target_state: str
    submit_time_ns: int
    update_time_ns: int
    timeout_s: int
    payload: bytes
    priority: int


@record
class Queues:
    """The queues with live tasks, and the number of these tasks."""

    names: frozenset[str]
    task_count: int


class Corndogs(Protocol):
    """A task state service: stores tasks, hands each to one claimant, swaps states on timeout.

    Calls may come in any order, but none after ``close``. Every method may be called from several threads at
    once. Each blocks for at most the client's deadline.

    Repeating: the reading calls and ``clean_up_timed_out`` are safe to repeat. ``update_task`` is safe if no
    other client changed the task in between. ``complete_task`` and ``cancel_task`` return None the second
    time, because the task is archived already. ``submit_task`` creates another task each time, and
    ``get_next_task`` claims another one: after a ``CorndogsUnavailable`` the call may or may not have
    happened.

    Raises, from every call: ``CorndogsUnavailable`` when the service does not answer in time or the client
    was closed, ``CorndogsError`` when it answers with an error or with another task than the requested one,
    ``InvalidInput`` for a uuid that is not a canonical one, before anything is sent (an empty uuid makes a
    real server act on some other task). The service's error texts are logged, and are not in the exceptions,
    which are shown to users.

    The service finds a task by its uuid alone. Pass the true queue and state nevertheless, but do not
    rely on them as a fence: every client that knows the uuid can change the task.
    """

    def submit_task(
        self,
        queue: str,
        *,
        current_state: str = "submitted",
        auto_target_state: str = "",
        timeout_s: int = 0,
        payload: bytes = b"",
        priority: int = 0,
    ) -> Task:
        """Store a new task, durably, and return it.

        An empty queue is ``default``, an empty auto target state is the current state with ``-working``
        behind it. ``timeout_s`` 0 is the server's default (normally none) and -1 is none: a task with a
        timeout can time out while it still waits. ``priority`` is a signed 32 bit number; higher ones are
        claimed first.
        """
        ...

    def get_task(self, uuid: str, queue: str) -> Task | None:
        """Return the task, live or archived, or None if there is none."""
        ...

    def get_next_task(
        self,
        queue: str,
        current_state: str = "submitted",
        *,
        override_timeout_s: int = 0,
        override_current_state: str = "",
        override_auto_target_state: str = "",
    ) -> Task | None:
        """Claim the task with the highest priority; among equal ones, the one updated longest ago.

        The task's auto target state becomes its current state, and the requested state its auto target,
        unless they are overridden. ``override_timeout_s`` 0 keeps the task's own timeout, a negative one
        takes it away. Returns the task as it is now, but releases up to 0.3 with the ``update_time_ns`` from
        before the claim.
        None means that no task waits, or that another client had locked the only one.
        """
        ...

    def update_task(
        self,
        uuid: str,
        queue: str,
        current_state: str,
        *,
        new_state: str,
        auto_target_state: str,
        timeout_s: int,
        priority: int,
        payload: bytes = b"",
    ) -> Task | None:
        """Set states, timeout and priority to exactly these, and renew the update time.

        All of them are required, because the service stores 0 for an omitted one. An empty payload
        leaves the stored one. None means that no such task is live.
        """
        ...

    def complete_task(self, uuid: str, queue: str, current_state: str) -> Task | None:
        """Move the task to the archive as ``completed``; None means that no such task is live."""
        ...

    def cancel_task(self, uuid: str, queue: str, current_state: str) -> Task | None:
        """Move the task to the archive as ``canceled``; None means that no such task is live."""
        ...

    def clean_up_timed_out(self, at_time_ns: int, queue: str) -> int:
        """Swap the two states of every task whose timeout was over at that time; return how many.

        They lose their timeout and go to the back of their priority. The server does not do this by itself:
        the workers of a queue clean it up. An empty ``queue`` means all queues of the server, including
        those of other programs. 0 as ``at_time_ns`` expires nothing.
        """
        ...

    def queues(self) -> Queues:
        """Return the queues with live tasks."""
        ...

    def queue_task_counts(self) -> dict[str, int]:
        """Return the number of live tasks by queue."""
        ...

    def task_state_counts(self, queue: str) -> dict[str, int]:
        """Return the number of this queue's live tasks by state; empty for an unknown queue."""
        ...

    def queue_and_state_counts(self) -> dict[str, dict[str, int]]:
        """Return the number of live tasks by queue, then state."""
        ...

    def check_health(self) -> None:
        """Raise ``CorndogsError`` unless the service can read its storage."""
        ...

    def close(self) -> None:
        """Close connections and threads; safe to repeat. Later calls raise ``CorndogsUnavailable``."""
        ...


def checked_uuid(uuid: str) -> str:
    """Return the uuid; raises ``InvalidInput`` unless it is a canonical one."""
    if not is_id(uuid):
        raise InvalidInput(f"{uuid!r} is not the id of a Corndogs task, which is a UUID", "uuid")
    return uuid


def call_failed(rpc: str, status: str) -> CorndogsError:
    """Return the error of a call that ended with the gRPC status of this name.

    It does not contain the server's text, which may name its database's host and user.
    """
    if status in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return CorndogsUnavailable(
            f"Corndogs does not answer ({status}); check that it runs and can be reached"
        )
    return CorndogsError(f"Corndogs refused {rpc} ({status}); the service's log has the reason")


def message_size_bytes(sent: Iterable[str | bytes | int]) -> int:
    """Return about the size of a message with these values.

    Raises ``ValueError`` for values that no message can have: half a surrogate pair, a number beyond 64 bits.
    """
    size_bytes = 0
    for value in sent:
        if isinstance(value, str):
            size_bytes += len(value.encode()) + 5
        elif isinstance(value, bytes):
            size_bytes += len(value) + 5
        elif not -(2**63) <= value < 2**63:
            raise ValueError(f"{value} is not a signed 64 bit number")
    return size_bytes
