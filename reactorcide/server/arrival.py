"""A request on its way in: parsed as it arrives, within the limits on its head and its body."""

import enum
import re
from time import monotonic

import h11

from reactorcide.server.pace import Pace

MAX_HEAD_BYTES = 32 << 10
_MAX_FIELDS = 100
_MAX_TARGET_BYTES = 4096
_MAX_UNASKED_BYTES = 16 << 10
"""A body that announces no more is read before the application has checked the token."""
_FREE_CHUNKS = 1024
_MIN_CHUNK_BYTES = 64
"""The least average size of a body's chunks after the first 1024: each costs the loop time."""
_READ_AHEAD_BYTES = 256 << 10
"""The longest part of a streamed body that waits for the application."""
PIECE_BYTES = 64 << 10
"""The longest part of a streamed body that the application waits for at a time."""
_IDLE_S = 15.0

_UNKNOWN = float("inf")
_TOO_MANY_FIELDS = f"there are more than {_MAX_FIELDS} header fields"
_TOO_LARGE = "the body is larger than the service takes"
_BLANK_LINE = re.compile(rb"\n\r?\n")
_ORIGIN_FIELD = re.compile(rb"\norigin:[ \t]*(\S*)", re.IGNORECASE)


class Refusal(Exception):
    """The request does not reach the application; the answer has this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Stage(enum.Enum):
    """How much of a request has arrived."""

    NOTHING = enum.auto()
    HEAD = enum.auto()
    """A part of the head."""
    BODY = enum.auto()
    """The head, and perhaps a part of the body."""
    COMPLETE = enum.auto()
    FAILED = enum.auto()
    """The rest will not arrive; ``Arrival.error`` tells why."""


class Arrival:
    """The parser of one request. Its owner calls it under a lock."""

    def __init__(self, http: h11.Connection, timeout_s: float) -> None:
        self.stage = Stage.NOTHING
        self.deadline = monotonic() + _IDLE_S
        """For the first byte, then for the whole request unless its body is streamed."""
        self.request: h11.Request
        """From the stage ``BODY`` on."""
        self.error = ""
        self.is_streamed = False
        """Whether the application reads the body while it arrives."""
        self._http = http
        self._timeout_s = timeout_s
        self._head = bytearray()
        self._head_lines = 0
        self._counted_bytes = 0
        self._announced_bytes = 0.0
        self._body = bytearray()
        self._body_bytes = 0
        self._max_body_bytes = _MAX_UNASKED_BYTES
        self._chunks = 0
        self._pace = Pace(timeout_s)

    def receive(self, data: bytes) -> None:
        """Hand data to the parser."""
        if self.stage is Stage.NOTHING:
            # Empty lines may precede a request (RFC 9112, 2.2).
            data = data.lstrip(b"\r\n")
            if not data:
                return
            self.stage = Stage.HEAD
            self.deadline = monotonic() + self._timeout_s
        if self.stage is Stage.HEAD:
            self._head += data
        self._http.receive_data(data)

    def _count_fields(self) -> None:
        """Count the lines of the head before it is parsed, which costs much more for each of them."""
        # The blank line may have begun in the piece before.
        end = _BLANK_LINE.search(self._head, max(0, self._counted_bytes - 2))
        if end is not None:
            del self._head[end.start() + 1 :]
        self._head_lines += self._head.count(b"\n", self._counted_bytes)
        self._counted_bytes = len(self._head)
        if self._head_lines > _MAX_FIELDS + 1:
            raise Refusal(431, _TOO_MANY_FIELDS)

    def parse_head(self) -> h11.Request | None:
        """Return the request when its head has just become complete; raises ``Refusal``."""
        if self.stage is not Stage.HEAD:
            return None
        self._count_fields()
        event = self._next_event()
        if not isinstance(event, h11.Request):
            return None
        self.request = event
        self.stage = Stage.BODY
        self._head.clear()
        fields = dict(event.headers)
        is_chunked = b"transfer-encoding" in fields
        self._announced_bytes = _UNKNOWN if is_chunked else int(fields.get(b"content-length", b"0"))
        if not event.http_version.startswith(b"1."):
            raise Refusal(400, "the service speaks HTTP/1.1 and 1.0")
        if len(event.target) > _MAX_TARGET_BYTES:
            raise Refusal(414, f"the address is longer than {_MAX_TARGET_BYTES} bytes")
        if len(event.headers) > _MAX_FIELDS:
            raise Refusal(431, _TOO_MANY_FIELDS)
        return event

    @property
    def needs_permission(self) -> bool:
        """Whether the application has to permit a body of the announced size."""
        return self._announced_bytes > self._max_body_bytes

    def permit(self, max_body_bytes: int | None) -> None:
        """Take a body of up to that size; ``None`` has it streamed, with a deadline that readers set."""
        if max_body_bytes is None:
            self.is_streamed = True
            self.deadline = float("inf")
        else:
            self._max_body_bytes = max_body_bytes

    def check_size(self) -> None:
        """Raise ``Refusal`` if the body announces to be larger than permitted."""
        if self._max_body_bytes < self._announced_bytes < _UNKNOWN:
            raise Refusal(413, _TOO_LARGE)

    @property
    def has_room(self) -> bool:
        """Whether to parse more of the body now."""
        if self.is_streamed and len(self._body) >= _READ_AHEAD_BYTES:
            return False
        return self.stage is Stage.BODY

    def parse_body(self) -> None:
        """Parse what has arrived of the body, while there is room; raises ``Refusal``."""
        while self.has_room:
            event = self._next_event()
            if isinstance(event, h11.EndOfMessage):
                self.stage = Stage.COMPLETE
            elif isinstance(event, h11.Data):
                self._add(event.data)
            else:
                break

    def _add(self, data: bytes) -> None:
        self._chunks += 1
        self._body_bytes += len(data)
        self._body += data
        if self._chunks > _FREE_CHUNKS + self._body_bytes // _MIN_CHUNK_BYTES:
            raise Refusal(400, f"the body comes in too many chunks of less than {_MIN_CHUNK_BYTES} bytes")
        if not self.is_streamed and self._body_bytes > self._max_body_bytes:
            raise Refusal(413, _TOO_LARGE)

    def _next_event(self) -> object:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as exc:
            if exc.error_status_hint == 431:
                raise Refusal(431, "the header fields are larger than the service takes") from exc
            status = 413 if exc.error_status_hint == 413 else 400
            raise Refusal(status, f"this is not an HTTP request that the service understands: {exc}") from exc

    def fail(self, error: str) -> None:
        """Expect no more data: reading the body raises this error."""
        self.stage = Stage.FAILED
        self.error = error

    def is_readable(self, size: int) -> bool:
        """Return whether ``size`` bytes, or all there will be, can be read."""
        return len(self._body) >= size or self.stage in (Stage.COMPLETE, Stage.FAILED)

    @property
    def remaining_s(self) -> float:
        """How long a reader may wait for the client."""
        return self._pace.remaining_s

    def read(self, size: int, waited_s: float) -> bytes:
        """Remove and return up to ``size`` bytes of the body, for which the reader waited so long."""
        data = bytes(self._body[:size])
        self._pace.count(waited_s, len(data))
        del self._body[:size]
        return data

    @property
    def body(self) -> bytes:
        """What has been parsed of the body, and not been read."""
        return bytes(self._body)

    @property
    def trailing_data(self) -> bytes:
        """What arrived after the end of the request."""
        return self._http.trailing_data[0]

    def clear(self) -> None:
        """Give up the memory for what has been parsed."""
        self._head.clear()
        self._body.clear()

    def close(self) -> None:
        """Parse no more, and give up the parser's memory as well."""
        self.clear()
        self._http = h11.Connection(h11.SERVER)

    @property
    def held_bytes(self) -> int:
        """The memory that the request takes. An incomplete head is held by the parser as well."""
        return len(self._body) + 2 * len(self._head)

    @property
    def origin(self) -> str:
        """The Origin field as far as the head has arrived; nothing if no web page sent the request."""
        if self.stage is not Stage.HEAD:
            return dict(self.request.headers).get(b"origin", b"").decode("latin-1")
        field = _ORIGIN_FIELD.search(self._head)
        return "" if field is None else field[1].decode("latin-1")
