"""One client's connection: its state, and what each event and each call of an exchange does to it.

Longer than 400 lines, because it is one state machine under one lock: halves of it would share both.
"""

import contextlib
import enum
import logging
import select
import selectors
import socket
import ssl
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

import h11

from reactorcide.domain.errors import InvalidInput
from reactorcide.server.answer import Answer, error_answer
from reactorcide.server.arrival import MAX_HEAD_BYTES, PIECE_BYTES, Arrival, Refusal, Stage
from reactorcide.server.shares import Share
from reactorcide.server.transport import Transport

if TYPE_CHECKING:
    from reactorcide.server.exchange import Exchange
    from reactorcide.server.front import Front

log = logging.getLogger("reactorcide.web")

_MAX_UNSENT_BYTES = 64 << 10
"""With so much of an answer unsent the application is not asked for more; with half of it, it is again."""
_LINGER_S = 2.0
_LINGER_WHEN_STOPPING_S = 0.2
_DRAIN_S = 30.0
_MAX_DRAINED_BYTES = 1 << 30
_NEVER = float("inf")


class State(enum.Enum):
    """What a connection waits for."""

    ARRIVING = enum.auto()
    """The client: a request, or the rest of one."""
    ASKING = enum.auto()
    """The application: whether it wants the body."""
    ANSWERING = enum.auto()
    """The application: its answer; then the client, to take all of it."""
    LINGERING = enum.auto()
    """The client, to close. What it still sends is thrown away, since a reset would destroy the answer."""
    CLOSED = enum.auto()


class Connection:
    """A connection. The methods of the first section are for the loop only, the others for any thread."""

    def __init__(self, front: "Front", share: Share, sock: socket.socket, address: Any) -> None:
        self.front = front
        self.share = share
        self.address = address
        self.scheme = "https" if isinstance(sock, ssl.SSLSocket) else "http"
        self.held_bytes = 0
        """The memory that the request and the answer take."""
        self._lock = threading.Lock()
        self._body_arrived = threading.Condition(self._lock)
        self._transport = Transport(sock, share.selector, self)
        self._drained_bytes = 0
        self._paused: Exchange | None = None
        """The exchange that no thread runs until the client has taken enough of its answer."""
        self._is_unparked = False
        self._expect_request()

    def _expect_request(self) -> None:
        # A new parser for each request: empty lines cannot be removed from one that has received them.
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._arrival = Arrival(http, self.front.request_timeout_s)
        self._answer = Answer(http)
        self.state = State.ARRIVING
        self._deadline = self._arrival.deadline

    # --- for the loop ----------------------------------------------------------------------------

    def update(self, ready: int = 0) -> None:
        """Do what the socket is ready for, and what another thread has made possible."""
        with self._lock:
            if ready & selectors.EVENT_WRITE and self.state is not State.CLOSED:
                self._flush()
                self._settle()
            self._parse()
            if ready & selectors.EVENT_READ and self.state is not State.CLOSED:
                self._receive()
            self._transport.watch(self._watched_events())

    def on_time(self, now: float) -> None:
        """End what takes too long."""
        if self._deadline > now:
            return
        with self._lock:
            if self._deadline > now or self.state is State.CLOSED:
                return
            if self._has_partial_request():
                self._refuse(408, "the request did not arrive in time")
                self._transport.watch(self._watched_events())
            else:
                if self.state is State.ANSWERING:
                    log.info("%s was cut off: it does not take its answer", self.address[0])
                self._close()

    @property
    def lingers_until(self) -> float | None:
        """When a connection that only waits for its client to close is closed; else ``None``."""
        return self._deadline if self.state is State.LINGERING else None

    def make_room(self) -> bool:
        """Close the connection unless a thread works for it; return whether it was closed."""
        with self._lock:
            waits_for_client = self._transport.unsent_bytes and (self._paused or self._answer.is_complete)
            if self.state is State.ASKING or (self.state is State.ANSWERING and not waits_for_client):
                return False
            if self._has_partial_request():
                self._send_error(503, "too many requests are on their way just now; send this one again")
            self._close()
            return True

    def stop(self) -> None:
        """Close a connection that has no request; while the front stops, others close after their answer."""
        with self._lock:
            if self.state in (State.ARRIVING, State.LINGERING) and not self._has_partial_request():
                self._close()

    def close(self) -> None:
        """Close at once. Safe to repeat."""
        with self._lock:
            self._close()

    # --- for the thread of an exchange -----------------------------------------------------------

    def client_has_closed(self) -> bool:
        """Return whether the client has closed; writing alone would notice only after buffers fill.

        A client that has only ended its stream is still there: what tells them apart is a probe.
        """
        with self._lock:
            if self.state is State.CLOSED:
                return True
            end = self._transport.poll_end()
            if end & (select.POLLHUP | select.POLLERR):
                return True
            if end and not self._transport.unsent_bytes and (probe := self._answer.probe()):
                self._send(probe)
            return False

    def client_has_ended(self) -> bool:
        """Return whether the client has closed or ended its stream, as some do that want their answer."""
        with self._lock:
            return self.state is State.CLOSED or bool(self._transport.poll_end())

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of a streamed body, none at its end.

        Raises ``InvalidInput`` if the client sends too slowly, or not what HTTP allows.
        """
        with self._lock:
            arrival = self._arrival
            self._go_ahead()
            started_at = monotonic()
            min_bytes = min(size, PIECE_BYTES)
            if not self._body_arrived.wait_for(lambda: arrival.is_readable(min_bytes), arrival.remaining_s):
                arrival.fail("the rest of the body did not arrive in time")
            if arrival.stage is Stage.FAILED:
                raise InvalidInput(arrival.error)
            data = arrival.read(size, monotonic() - started_at)
            self._count_memory()
            if arrival.stage is Stage.BODY and not self._transport.events & selectors.EVENT_READ:
                self.front.defer(self, self.update)
            return data

    def permit(self, max_body_bytes: int | None) -> None:
        """Receive the body that the application was asked about; ``None`` has it streamed."""
        with self._lock:
            if self.state is State.ASKING:
                self._arrival.permit(max_body_bytes)
                self.state = State.ARRIVING
                self._deadline = self._arrival.deadline
                self.front.defer(self, self.update)

    def deny(self) -> None:
        """Expect an answer in place of the permission to receive the body."""
        with self._lock:
            self._check()
            self.state = State.ANSWERING
            self._deadline = _NEVER

    def begin_answer(self, status: int, reason: str, headers: list[tuple[str, str]], has_body: bool) -> None:
        """Send the head of the answer together with the next ``write``."""
        with self._lock:
            self._check()
            is_last = self.front.is_stopping
            self._transport.queue(self._answer.head(status, reason, headers, has_body, is_last=is_last))

    def write(self, data: bytes) -> None:
        """Send a piece of the answer; raises ``ConnectionError`` if the client has gone."""
        with self._lock:
            self._check()
            self._send(self._answer.data(data) if data else b"")

    def end_answer(self) -> None:
        """Send the end of the answer; raises ``ConnectionError`` if the client has gone."""
        with self._lock:
            self._check()
            self._send(self._answer.end())

    @property
    def is_full(self) -> bool:
        """Whether so much of the answer is unsent that the exchange has to wait."""
        with self._lock:
            return self.state is not State.CLOSED and self._transport.unsent_bytes >= _MAX_UNSENT_BYTES

    def pause(self, exchange: "Exchange") -> bool:
        """Submit the exchange again when there is room; return ``False`` if there is room already.

        The calling thread must have left the exchange: another one may enter it at once.
        """
        with self._lock:
            if self.state is State.CLOSED or self._has_room():
                return False
            self._paused = exchange
            return True

    def begin_to_park(self) -> None:
        """Expect ``park``: an ``unpark`` from now on ends that."""
        with self._lock:
            self._is_unparked = False

    def park(self, exchange: "Exchange") -> bool:
        """Submit the exchange again after ``unpark``; return ``False`` if that was called already.

        It may be submitted earlier. The calling thread must have left the exchange.
        """
        with self._lock:
            if self.state is State.CLOSED or self._is_unparked:
                return False
            self._paused = exchange
            return True

    def unpark(self) -> None:
        """Submit the parked exchange again; from any thread."""
        with self._lock:
            self._is_unparked = True
            self._resume()

    def abort(self) -> None:
        """Break the connection off, so that an incomplete answer does not look complete."""
        self.front.defer(self, self.close)

    # --- with the lock held: the client's turn ---------------------------------------------------

    def _has_partial_request(self) -> bool:
        return self.state is State.ARRIVING and self._arrival.stage is not Stage.NOTHING

    def _is_streaming(self) -> bool:
        return self.state is State.ANSWERING and self._arrival.is_streamed

    def _receives(self) -> bool:
        """Return whether to take something from the client now."""
        if self._is_streaming():
            return self._arrival.has_room
        return self.state in (State.ARRIVING, State.LINGERING)

    def _receive(self) -> None:
        if not self._receives():
            # Stop watching until it is received again: the loop would be woken without need.
            self._transport.watch(self._transport.events & ~selectors.EVENT_READ)
            return
        if (data := self._transport.receive()) is None:
            return
        if self.state is State.LINGERING:
            self._drained_bytes += len(data)
            if not data or self._drained_bytes > _MAX_DRAINED_BYTES:
                self._close()
        elif data:
            self._take(data)
            self._parse()
        elif self._is_streaming():
            self._fail_body("the body ended too early")
        else:
            self._close()

    def _take(self, data: bytes) -> None:
        self._arrival.receive(data)
        if self.state is State.ARRIVING:
            self._deadline = self._arrival.deadline

    def _parse(self) -> None:
        """Parse what has arrived, and start what follows from it. For the loop only."""
        arrival = self._arrival
        try:
            if self.state is State.ARRIVING:
                if (request := arrival.parse_head()) is not None and arrival.needs_permission:
                    self.state = State.ASKING
                    self._deadline = _NEVER
                    self.front.ask(self, request)
                elif arrival.is_streamed:
                    self._start_answer(None)
                else:
                    arrival.check_size()
                    self._go_ahead()
            if self.state is State.ARRIVING or self._is_streaming():
                arrival.parse_body()
        except Refusal as refusal:
            self._refuse(refusal.status, str(refusal))
        if self._is_streaming():
            self._body_arrived.notify_all()
        elif self.state is State.ARRIVING and arrival.stage is Stage.COMPLETE:
            self._start_answer(arrival.body)
            arrival.clear()
        self._count_memory()

    def _go_ahead(self) -> None:
        if data := self._answer.go_ahead():
            self._send(data)

    def _start_answer(self, body: bytes | None) -> None:
        """Have a thread answer the request; ``None`` for a body that is streamed."""
        self.state = State.ANSWERING
        self._deadline = _NEVER
        self.front.answer(self, self._arrival.request, body)

    def _fail_body(self, error: str) -> None:
        self._arrival.fail(error)
        self._body_arrived.notify_all()

    # --- with the lock held: the answer ----------------------------------------------------------

    def _check(self) -> None:
        if self.state is State.CLOSED:
            raise ConnectionResetError("the client has gone")

    def _has_room(self) -> bool:
        return self._transport.unsent_bytes < _MAX_UNSENT_BYTES // 2

    def _refuse(self, status: int, message: str) -> None:
        """Answer in place of the application, or let it answer if it has begun to read the body."""
        if self._is_streaming():
            self._fail_body(message)
            return
        self.state = State.ANSWERING
        self._send_error(status, message)
        self._answer.is_complete = True
        self._settle()

    def _send_error(self, status: int, message: str) -> None:
        allowed = self.front.allow_origin(self._arrival.origin)
        self._arrival.clear()
        self._transport.queue(error_answer(self.address[0], status, message, allowed))
        # A client that has gone needs no answer.
        with contextlib.suppress(OSError):
            self._flush()

    def _send(self, data: bytes) -> None:
        """Send what the socket takes at once; the loop sends the rest."""
        self._transport.queue(data)
        try:
            self._flush()
        except OSError as exc:
            self.abort()
            raise ConnectionResetError("the client has gone") from exc
        self._settle()
        if self._watched_events() != self._transport.events or self._has_partial_request():
            self.front.defer(self, self.update)

    def _flush(self) -> None:
        self._transport.flush()
        if self.state is State.ANSWERING:
            self._deadline = monotonic() + self._transport.remaining_s
        self._count_memory()

    def _settle(self) -> None:
        """Do what follows from the client having taken some of the answer."""
        if self._has_room():
            self._resume()
        if self.state is not State.ANSWERING or not self._answer.is_complete or self._transport.unsent_bytes:
            return
        is_last = self.front.is_stopping or self._arrival.stage is not Stage.COMPLETE
        if is_last or not self._answer.may_be_followed:
            self._linger()
        else:
            trailing_data = self._arrival.trailing_data
            self._expect_request()
            self._take(trailing_data)

    def _resume(self) -> None:
        exchange, self._paused = self._paused, None
        if exchange is not None:
            self.front.submit(self, exchange)

    # --- with the lock held: the end -------------------------------------------------------------

    def _linger(self) -> None:
        """End the stream, and wait a while for the client to close."""
        self.state = State.LINGERING
        patience_s = _LINGER_S if self._arrival.stage is Stage.COMPLETE else _DRAIN_S
        self._deadline = monotonic() + (_LINGER_WHEN_STOPPING_S if self.front.is_stopping else patience_s)
        # A parser may hold a piece of some 64 KiB.
        self._arrival.close()
        self._answer.close()
        try:
            self._transport.end()
        except OSError:
            self.abort()

    def _close(self) -> None:
        if self.state is State.CLOSED:
            return
        # To a client that knows the end of an answer by the close alone, half of one would look complete.
        self._transport.close(is_reset=self.state is State.ANSWERING)
        self.state = State.CLOSED
        self._arrival.clear()
        self._count_memory()
        self._fail_body("the client has gone")
        # Its next call fails, and so it ends.
        self._resume()
        self.front.forget(self)

    def _watched_events(self) -> int:
        """Return the events that the loop has to watch for."""
        if self.state is State.CLOSED:
            return 0
        events = selectors.EVENT_WRITE if self._transport.unsent_bytes else 0
        # Watching for input during an answer is cheaper than stopping and starting: mostly none arrives.
        stays = self._transport.events & selectors.EVENT_READ and not self._arrival.is_streamed
        return events | selectors.EVENT_READ if self._receives() or stays else events

    def _count_memory(self) -> None:
        held_bytes = self._transport.unsent_bytes + self._arrival.held_bytes
        if held_bytes != self.held_bytes:
            self.front.hold(held_bytes - self.held_bytes)
            self.held_bytes = held_bytes
