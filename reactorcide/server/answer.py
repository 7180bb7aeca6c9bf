"""Encoding of an answer as bytes of HTTP."""

import email.utils
import json
import logging
from http import HTTPStatus
from time import monotonic

import h11

from reactorcide.lib.ids import new_id

log = logging.getLogger("reactorcide.web")

_MAX_PROBES = 8
"""Zeros before the size of a chunk: clients take 16 digits, and the largest chunk needs fewer than 8."""


class Answer:
    """The encoder of one answer. Its owner calls it under a lock."""

    def __init__(self, http: h11.Connection) -> None:
        self.is_complete = False
        self._http = http
        self._is_chunked = False
        self._probes = 0
        self._next_probe = 0.0

    def go_ahead(self) -> bytes:
        """Return a 100 Continue if the client waits for it with its body (RFC 9110, 10.1.1)."""
        if not self._http.they_are_waiting_for_100_continue:
            return b""
        return self._encode(h11.InformationalResponse(status_code=100, reason=b"Continue", headers=[]))

    def head(
        self, status: int, reason: str, headers: list[tuple[str, str]], has_body: bool, *, is_last: bool
    ) -> bytes:
        """Return the head; with ``is_last`` the connection is closed after the answer."""
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        names = {name.lower() for name, _ in headers}
        if "date" not in names:
            fields.append((b"Date", email.utils.formatdate(usegmt=True).encode()))
        fields.append((b"Server", b"reactorcide"))
        if is_last or self._http.their_state is not h11.DONE:
            fields.append((b"Connection", b"close"))
        self._is_chunked = (
            self._http.their_http_version == b"1.1" and "content-length" not in names and has_body
        )
        return self._encode(h11.Response(status_code=status, reason=reason.encode("latin-1"), headers=fields))

    def data(self, data: bytes) -> bytes:
        """Return a piece of the body."""
        self._probes = 0
        return self._encode(h11.Data(data=data))

    def end(self) -> bytes:
        """Return the end of the body."""
        end = self._encode(h11.EndOfMessage())
        self.is_complete = True
        return end

    def probe(self) -> bytes:
        """Return data that only a closed client rejects: a zero before the size of the next chunk.

        A chunk's size may have any number of them (RFC 9112, 7.1). Each has to wait twice as long as the one
        before; until then, and where a probe is impossible, there is nothing to send.
        """
        now = monotonic()
        if not self._is_chunked or self._http.our_state is not h11.SEND_BODY:
            return b""
        if self._probes and (self._probes >= _MAX_PROBES or now < self._next_probe):
            return b""
        self._next_probe = now + 2**self._probes
        self._probes += 1
        return b"0"

    def close(self) -> None:
        """Encode no more, and give up the memory of the parser, which the encoder shares."""
        self._http = h11.Connection(h11.SERVER)

    @property
    def may_be_followed(self) -> bool:
        """Whether HTTP permits another request after this answer."""
        return self._http.our_state is h11.DONE

    def _encode(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""


def error_answer(client: str, status: int, message: str, more_fields: dict[str, str]) -> bytes:
    """Return a whole answer like the application's errors, for a request that it never sees, and log it."""
    # Flask is loaded by now, but not in the master, which imports this module as well.
    from reactorcide.web.errors import code_of
    from reactorcide.web.requests import HEADERS

    request_id = new_id()
    log.info(
        "a request from %s was refused: %s %s", client, status, message, extra={"request_id": request_id}
    )
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
    status_line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    lines = [status_line, *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
