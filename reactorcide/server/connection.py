"""One client's connection: its request on the way in, its answer on the way out, and its end."""

import contextlib
import email.utils
import enum
import json
import logging
import re
import select
import selectors
import socket
import ssl
import struct
import threading
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any

import h11

from reactorcide.domain.errors import InvalidInput
from reactorcide.lib.ids import new_id
from reactorcide.server.pace import Pace
from reactorcide.server.shares import Share

if TYPE_CHECKING:
    from reactorcide.server.exchange import Exchange
    from reactorcide.server.front import Front

log = logging.getLogger("reactorcide.web")

_RECEIVE_BYTES = 64 << 10
_MAX_HEAD_BYTES = 32 << 10
_MAX_FIELDS = 100
_MAX_TARGET_BYTES = 4096
_MAX_UNASKED_BYTES = 16 << 10
"""A body that is announced to be no longer is taken before anybody has looked at who sends it."""
_FREE_CHUNKS = 1024
_MIN_CHUNK_BYTES = 64
"""The average size of the chunks of a body, but for the first 1024 of them: each costs the loop time."""
_READ_AHEAD_BYTES = 256 << 10
"""Of a body that is read while it comes."""
_PIECE_BYTES = 64 << 10
"""How much of such a body is handed on at once."""
_MAX_OUT_BYTES = 64 << 10
"""With so much of an answer on its way no more of it is made."""
_IDLE_S = 15.0
_TAKE_S = 30.0
"""For which a client may take nothing of an answer; see ``Pace``."""
_LINGER_S = 2.0
_LINGER_WHEN_STOPPING_S = 0.2
_DRAIN_S = 30.0
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER by which closing sends a reset, and drops what has not been sent."""
_MAX_DRAINED_BYTES = 1 << 30

_UNKNOWN = float("inf")
_TOO_MANY_FIELDS = f"there are more than {_MAX_FIELDS} header fields"
_TOO_LARGE = "the body is larger than the service takes"

_BLANK_LINE = re.compile(rb"\n\r?\n")
_ORIGIN_FIELD = re.compile(rb"\norigin:[ \t]*(\S*)", re.IGNORECASE)
_SENDS_NO_MORE: int = getattr(select, "POLLRDHUP", 0)
_MAX_PROBES = 8
"""Zeros before the size of a chunk: clients take 16 digits, and the largest chunk needs fewer than 8."""


class State(enum.Enum):
    """What a connection is about."""

    ARRIVING = enum.auto()
    """Nothing, a part of a request's head, or a part of its body has come."""
    ASKING = enum.auto()
    """A thread asks the application whether it wants the body at all."""
    ANSWERING = enum.auto()
    """The answer is made, or on its way."""
    LINGERING = enum.auto()
    """All is said. What the client still sends is thrown away, for a reset would destroy the answer."""
    CLOSED = enum.auto()


class Connection:
    """A connection. What is said to be "of the loop" may be called by it alone; the rest by any thread."""

    def __init__(self, front: "Front", share: Share, sock: socket.socket, address: Any) -> None:
        self.front = front
        self.share = share
        self.sock = sock
        self.address = address
        self.state = State.ARRIVING
        self.deadline = monotonic() + _IDLE_S
        self.exchange: Exchange | None = None
        self._lock = threading.Lock()
        self._came = threading.Condition(self._lock)
        self._rest = b""
        self._interest = 0
        self._out = bytearray()
        self._taking = Pace(_TAKE_S)
        self._waits_since: float | None = None
        self._held_bytes = 0
        self._drained_bytes = 0
        self._arrival_deadline = self.deadline
        self._is_paused = False
        self._is_answered = False
        self._begin_request()

    def _begin_request(self) -> None:
        self.state = State.ARRIVING
        self.exchange = None
        # A new one for each request: there is no way to take empty lines out of one that has received them.
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._has_begun = False
        self._head = bytearray()
        self._head_lines = 0
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._max_body_bytes = _MAX_UNASKED_BYTES
        self._body_bytes = 0
        self._chunks = 0
        self._is_streamed = False
        self._sending = Pace(self.front.request_timeout_s)
        self._is_whole = False
        self._is_broken: str | None = None
        self._must_close = False
        self._is_answered = False
        self._is_chunked = False
        self._probes = 0
        self._next_probe = 0.0

    # --- of the loop -----------------------------------------------------------------------------

    def on_event(self, mask: int) -> None:
        """Do what the socket is ready for."""
        with self._lock:
            try:
                if mask & selectors.EVENT_WRITE and self.state is not State.CLOSED:
                    self._flush()
                    self._settle()
                self._take_rest()
                if mask & selectors.EVENT_READ and self.state is not State.CLOSED:
                    self._receive()
            except OSError as exc:
                log.debug("the connection of %s broke: %s", self.address[0], exc)
                self._close()
            self._watch()

    def go_on(self) -> None:
        """Do what has become possible by what another thread did."""
        with self._lock:
            self._take_rest()
            if self.state is State.ARRIVING or self._is_streamed:
                self._parse()
            self._watch()

    def on_time(self, now: float) -> None:
        """End what takes too long."""
        if self.deadline > now:
            return
        with self._lock:
            if self.deadline > now or self.state is State.CLOSED:
                return
            if self.state is State.ARRIVING and self._has_begun:
                self._refuse(408, "the request did not arrive in time")
                self._watch()
            else:
                if self.state is State.ANSWERING:
                    log.info("%s was cut off: it does not take its answer", self.address[0])
                self._close()

    def make_room(self) -> bool:
        """Give up the place for others, if no thread works for this connection; return whether it did."""
        with self._lock:
            if self.state is State.ASKING or (self.state is State.ANSWERING and not self._waits_for_client()):
                return False
            if self.state is State.ARRIVING and self._has_begun:
                self._say(503, "too many requests are on their way just now; send this one again")
            self._close()
            return True

    def stop(self) -> None:
        """Close where nothing has begun, and after what has."""
        with self._lock:
            self._must_close = True
            if self.state is State.LINGERING or (self.state is State.ARRIVING and not self._has_begun):
                self._close()

    def close(self) -> None:
        """Close at once. Safe to repeat."""
        with self._lock:
            self._close()

    @property
    def held_bytes(self) -> int:
        """Memory that is taken by what is on its way in and out."""
        return self._held_bytes

    # --- of the thread that answers --------------------------------------------------------------

    def has_gone(self) -> bool:
        """Tell whether the client has closed; writing alone would notice only after buffers fill.

        Nothing is read: below TLS, what has come last need not be the request's, nor be the end. A client
        that only sends no more is still there. TCP does not tell it from one that has closed until something
        is sent.
        """
        with self._lock:
            if self.state is State.CLOSED:
                return True
            poll = select.poll()
            poll.register(self.sock, _SENDS_NO_MORE)
            found = poll.poll(0)
            if not found:
                return False
            if found[0][1] & (select.POLLHUP | select.POLLERR):
                return True
            self._probe()
            return False

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of the body, none at its end.

        Raises ``InvalidInput`` where the client sends too slowly, or what comes is wrong.
        """
        with self._lock:
            if self._http.they_are_waiting_for_100_continue:
                self._continue()
            wanted = min(size, _PIECE_BYTES)
            begun = monotonic()
            if not self._came.wait_for(
                lambda: len(self._body) >= wanted or self._is_whole or self._is_broken is not None,
                self._sending.left_s,
            ):
                self._is_broken = "the rest of the body did not come in time"
            if self._is_broken is not None:
                raise InvalidInput(self._is_broken)
            data = bytes(self._body[:size])
            self._sending.count(monotonic() - begun, len(data))
            del self._body[:size]
            self._hold()
            if not self._is_whole and not self._interest & selectors.EVENT_READ:
                self.front.defer(self, self.go_on)
            return data

    def begin_answer(
        self, status: int, reason: str, headers: list[tuple[str, str]], *, has_body: bool = True
    ) -> None:
        """Say the head of the answer with what is written next."""
        with self._lock:
            self._check()
            fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            said = {name.lower() for name, _ in headers}
            if "date" not in said:
                fields.append((b"Date", email.utils.formatdate(usegmt=True).encode()))
            fields.append((b"Server", b"reactorcide"))
            if not self._may_go_on():
                self._must_close = True
                fields.append((b"Connection", b"close"))
            self._is_chunked = (
                self._http.their_http_version == b"1.1" and "content-length" not in said and has_body
            )
            response = h11.Response(status_code=status, reason=reason.encode("latin-1"), headers=fields)
            self._queue(self._http.send(response))

    def write(self, data: bytes) -> None:
        """Say a piece of the answer; raises ``ConnectionError`` where nobody hears it any more."""
        with self._lock:
            self._check()
            if data:
                self._queue(self._http.send(h11.Data(data=data)))
                self._probes = 0
            self._send()

    def end_answer(self) -> None:
        """Say that the answer is complete."""
        with self._lock:
            self._check()
            self._queue(self._http.send(h11.EndOfMessage()))
            self._is_answered = True
            self._send()

    @property
    def is_full(self) -> bool:
        """Tell whether to make no more of the answer for now."""
        with self._lock:
            return self.state is not State.CLOSED and len(self._out) >= _MAX_OUT_BYTES

    def pause(self) -> bool:
        """Have the answer's task begun again when there is room; return ``False`` if there is room already.

        To be called when nothing of the task is left in the calling thread: another one may begin it at once.
        """
        with self._lock:
            self._is_paused = self.state is not State.CLOSED and not self._has_room()
            return self._is_paused

    def admit(self, max_body_bytes: int | None) -> None:
        """Take the body that was asked about; with ``None`` it is read while it comes."""
        with self._lock:
            if self.state is not State.ASKING or self._request is None:
                return
            self.deadline = self._arrival_deadline
            if max_body_bytes is None:
                self._is_streamed = True
                self._answer(self._request)
            elif max_body_bytes < self._announced(self._request) < _UNKNOWN:
                self._refuse(413, _TOO_LARGE)
            else:
                self._max_body_bytes = max_body_bytes
                self.state = State.ARRIVING
                if self._http.they_are_waiting_for_100_continue:
                    self._continue()
            self.front.defer(self, self.go_on)

    def refused(self, exchange: "Exchange") -> None:
        """Have the application's answer to a question sent: it does not want the body."""
        with self._lock:
            self._check()
            self.state = State.ANSWERING
            self.exchange = exchange
            self.deadline = float("inf")

    def abort(self) -> None:
        """Break the connection off, so that what was said of an answer does not look complete."""
        self.front.defer(self, self.close)

    # --- with the lock held ----------------------------------------------------------------------

    def _check(self) -> None:
        if self.state is State.CLOSED:
            raise ConnectionResetError("the client has gone")

    def _may_go_on(self) -> bool:
        """Tell whether the connection can have another request after this one."""
        return not self._must_close and not self.front.is_stopping and self._http.their_state is h11.DONE

    def _has_room(self) -> bool:
        return len(self._out) < _MAX_OUT_BYTES // 2

    def _probe(self) -> None:
        """Send what only a client that has closed objects to: a zero before the size of the next chunk.

        A chunk's size may have any number of them (RFC 9112, 7.1). Each time it waits twice as long.
        """
        now = monotonic()
        if (
            not self._is_chunked
            or self._out
            or self._http.our_state is not h11.SEND_BODY
            or (self._probes and (self._probes >= _MAX_PROBES or now < self._next_probe))
        ):
            return
        self._next_probe = now + 2**self._probes
        self._probes += 1
        self._queue(b"0")
        self._send()

    def _waits_for_client(self) -> bool:
        return bool(self._out) and (self._is_paused or self._is_answered)

    def _receive(self) -> None:
        """Take a piece of what has come."""
        if not self._is_read():
            # It is looked at again when it is wanted.
            self._interest_without_read()
            return
        try:
            data = self.sock.recv(_RECEIVE_BYTES)
            while isinstance(self.sock, ssl.SSLSocket) and (pending := self.sock.pending()):
                # The kernel does not know of it, and would not tell.
                data += self.sock.recv(pending)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        if self.state is State.LINGERING:
            self._drained_bytes += len(data)
            if not data or self._drained_bytes > _MAX_DRAINED_BYTES:
                self._close()
        elif data:
            self._take(data)
        elif self._is_streamed and self.state is State.ANSWERING:
            self._break("the body ended too early")
        else:
            self._close()

    def _take_rest(self) -> None:
        """Take what has come together with the request before."""
        if self.state is State.ARRIVING and self._rest:
            data, self._rest = self._rest, b""
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Take a piece of a request."""
        if not self._has_begun:
            # Lines that are empty may stand before a request (RFC 9112, 2.2).
            data = data.lstrip(b"\r\n")
        if data:
            self._begin()
            if self._request is None and self._has_too_many_fields(data):
                self._refuse(431, _TOO_MANY_FIELDS)
            else:
                self._http.receive_data(data)
                self._parse()

    def _has_too_many_fields(self, data: bytes) -> bool:
        """Count the lines of a head: to take each of them apart costs much more."""
        counted = len(self._head)
        self._head += data
        # The blank line may have begun in the piece before.
        end = _BLANK_LINE.search(self._head, max(0, counted - 2))
        if end is not None:
            del self._head[end.start() + 1 :]
        self._head_lines += self._head.count(b"\n", counted)
        return self._head_lines > _MAX_FIELDS + 1

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._arrival_deadline = self.deadline = monotonic() + self.front.request_timeout_s

    def _parse(self) -> None:
        """Take in what has been received."""
        try:
            while self._takes_events():
                event = self._http.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
                if isinstance(event, h11.Request):
                    self._begin()
                    self._take_head(event)
                elif isinstance(event, h11.Data):
                    self._take_body(event)
                elif isinstance(event, h11.EndOfMessage):
                    self._is_whole = True
                    if self._is_streamed:
                        self._came.notify_all()
                    elif self._request is not None:
                        self._answer(self._request)
                elif isinstance(event, h11.ConnectionClosed):
                    self._close()
        except h11.RemoteProtocolError as exc:
            status = exc.error_status_hint if exc.error_status_hint in (413, 431) else 400
            message = (
                "the header fields are larger than the service takes"
                if status == 431
                else f"this is no HTTP request that the service understands: {exc}"
            )
            self._refuse(status, message)
        self._hold()

    def _takes_events(self) -> bool:
        if self._is_whole or self._is_broken is not None:
            return False
        return self.state is State.ARRIVING or (
            self._is_streamed and self.state is State.ANSWERING and len(self._body) < _READ_AHEAD_BYTES
        )

    def _take_head(self, request: h11.Request) -> None:
        self._request = request
        self._head = bytearray()
        if not request.http_version.startswith(b"1."):
            self._refuse(400, "the service speaks HTTP/1.1 and 1.0")
        elif len(request.target) > _MAX_TARGET_BYTES:
            self._refuse(414, f"the address is longer than {_MAX_TARGET_BYTES} bytes")
        elif len(request.headers) > _MAX_FIELDS:
            self._refuse(431, _TOO_MANY_FIELDS)
        elif self._announced(request) > _MAX_UNASKED_BYTES:
            self.state = State.ASKING
            self.deadline = float("inf")
            self.front.ask(self, request)
        elif self._http.they_are_waiting_for_100_continue:
            self._continue()

    @staticmethod
    def _announced(request: h11.Request) -> float:
        """Return how long the body is said to be."""
        fields = dict(request.headers)
        if b"transfer-encoding" in fields:
            return _UNKNOWN
        return int(fields.get(b"content-length", b"0"))

    def _take_body(self, event: h11.Data) -> None:
        self._chunks += 1
        self._body_bytes += len(event.data)
        self._body += event.data
        if self._chunks > _FREE_CHUNKS + self._body_bytes // _MIN_CHUNK_BYTES:
            self._refuse(400, f"the body comes in too many chunks of less than {_MIN_CHUNK_BYTES} bytes")
        elif self._is_streamed:
            self._came.notify_all()
        elif self._body_bytes > self._max_body_bytes:
            self._refuse(413, _TOO_LARGE)

    def _continue(self) -> None:
        self._queue(
            self._http.send(h11.InformationalResponse(status_code=100, reason=b"Continue", headers=[]))
        )
        self._send()

    def _answer(self, request: h11.Request) -> None:
        """Have the application answer."""
        self.state = State.ANSWERING
        self.deadline = float("inf")
        self.exchange = self.front.answer(self, request, None if self._is_streamed else bytes(self._body))
        if not self._is_streamed:
            self._body = bytearray()

    def _break(self, message: str) -> None:
        self._is_broken = message
        self._came.notify_all()

    def _refuse(self, status: int, message: str) -> None:
        """Answer what the application never sees, or not to its end."""
        if self._is_streamed and self.state is State.ANSWERING:
            self._break(message)
            return
        self.state = State.ANSWERING
        self._say(status, message)
        self._is_answered = True
        self._must_close = True
        self._body = bytearray()
        self._head = bytearray()
        self._settle()

    def _say(self, status: int, message: str) -> None:
        phrase, request_id = HTTPStatus(status).phrase, new_id()
        log.info(
            "a request from %s was refused: %s %s",
            self.address[0],
            status,
            message,
            extra={"request_id": request_id},
        )
        allowed = self.front.allow_origin(self._origin())
        self._queue(error_answer(status, phrase, message, request_id, allowed))
        self._try_to_send()

    def _origin(self) -> str:
        """Return which site's page sent the request, as far as it has come; nothing for what no page sent."""
        if self._request is not None:
            return dict(self._request.headers).get(b"origin", b"").decode("latin-1")
        found = _ORIGIN_FIELD.search(self._head)
        return "" if found is None else found[1].decode("latin-1")

    def _queue(self, data: bytes | None) -> None:
        self._out += data or b""

    def _send(self) -> None:
        """Send what can be sent at once; the loop does the rest."""
        try:
            self._flush()
        except OSError as exc:
            self.abort()
            raise ConnectionResetError("the client has gone") from exc
        self._settle()
        if self._is_to_be_watched():
            self.front.defer(self, self.go_on)

    def _try_to_send(self) -> None:
        try:
            self._flush()
        except OSError as exc:
            log.debug("%s does not take an answer: %s", self.address[0], exc)

    def _flush(self) -> None:
        taken_bytes = 0
        while self._out:
            try:
                sent_bytes = self.sock.send(self._out)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                break
            del self._out[:sent_bytes]
            taken_bytes += sent_bytes
        now = monotonic()
        self._taking.count(0 if self._waits_since is None else now - self._waits_since, taken_bytes)
        self._waits_since = now if self._out else None
        if self.state is State.ANSWERING:
            self.deadline = now + self._taking.left_s if self._out else float("inf")
        self._hold()

    def _settle(self) -> None:
        """Go on after what has been sent."""
        if self._is_paused and self.exchange is not None and self._has_room():
            self._is_paused = False
            self.front.resume(self, self.exchange)
        if self.state is State.ANSWERING and self._is_answered and not self._out:
            if self._must_close or self._http.our_state is not h11.DONE or not self._is_whole:
                self._linger()
            else:
                self._rest = self._http.trailing_data[0]
                self._begin_request()
                self.deadline = monotonic() + _IDLE_S

    def _linger(self) -> None:
        """Say that nothing more comes, and wait for the client to close, for a while."""
        self.state = State.LINGERING
        patience_s = _LINGER_S if self._is_whole else _DRAIN_S
        self.deadline = monotonic() + (_LINGER_WHEN_STOPPING_S if self.front.is_stopping else patience_s)
        with contextlib.suppress(OSError, ValueError):
            if isinstance(self.sock, ssl.SSLSocket):
                # Says it in TLS, too, and does not wait for the answer.
                self.sock.unwrap()
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()

    def _is_read(self) -> bool:
        """Tell whether something is wanted of the client."""
        return self.state in (State.ARRIVING, State.LINGERING) or (self._is_streamed and self._takes_events())

    def _wanted(self) -> int:
        if self.state is State.CLOSED:
            return 0
        wanted = selectors.EVENT_WRITE if self._out else 0
        # While it is answered it stays watched until something comes: mostly nothing does.
        if self._is_read() or (self._interest & selectors.EVENT_READ and not self._is_streamed):
            wanted |= selectors.EVENT_READ
        return wanted

    def _is_to_be_watched(self) -> bool:
        return self._wanted() != self._interest or (self.state is State.ARRIVING and bool(self._rest))

    def _watch(self) -> None:
        """Have the loop told of what is wanted; of the loop."""
        self._set_interest(self._wanted())

    def _interest_without_read(self) -> None:
        self._set_interest(self._interest & ~selectors.EVENT_READ)

    def _set_interest(self, wanted: int) -> None:
        if wanted == self._interest:
            return
        if not wanted:
            self.share.selector.unregister(self.sock)
        elif not self._interest:
            self.share.selector.register(self.sock, wanted, self)
        else:
            self.share.selector.modify(self.sock, wanted, self)
        self._interest = wanted

    def _hold(self) -> None:
        """Count the memory that this connection takes."""
        # A head that has not all come is here twice: the parser has it, too.
        held_bytes = len(self._out) + len(self._body) + 2 * len(self._head)
        if held_bytes != self._held_bytes:
            self.front.hold(held_bytes - self._held_bytes)
            self._held_bytes = held_bytes

    def _close(self) -> None:
        if self.state is State.CLOSED:
            return
        self._set_interest(0)
        if self.state is State.ANSWERING:
            # Or else half an answer looks complete to a client that knows of its end by the close alone.
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.state = State.CLOSED
        self._out = bytearray()
        self._body = bytearray()
        self._head = bytearray()
        self._hold()
        self._break("the client has gone")
        self.sock.close()
        if self._is_paused and self.exchange is not None:
            # Its thread has left it; another one ends it.
            self._is_paused = False
            self.front.resume(self, self.exchange)
        self.exchange = None
        self.front.forget(self)


def error_answer(
    status: int, reason: str, message: str, request_id: str, more_fields: dict[str, str]
) -> bytes:
    """Return an answer like every other error, for what the application never sees."""
    # Flask is here by now, but not in the master, which imports this module, too.
    from reactorcide.web.errors import code_of
    from reactorcide.web.requests import HEADERS

    body = json.dumps({"error": code_of(status), "message": message}).encode()
    fields = {
        **HEADERS,
        **more_fields,
        "Date": email.utils.formatdate(usegmt=True),
        "Server": "reactorcide",
        "X-Request-ID": request_id,
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
