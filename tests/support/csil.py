"""CSIL-RPC byte by byte, written from its description: for what our client never sends or gets."""

import socket
from types import TracebackType
from typing import Any

import cbor2

REQUEST_DEFAULTS: dict[str, dict[str, Any]] = {
    "SubmitTask": {
        "queue": "",
        "current_state": "",
        "auto_target_state": "",
        "timeout": 0,
        "payload": b"",
        "priority": 0,
    },
    "GetTaskStateByID": {"uuid": "", "queue": ""},
    "GetNextTask": {
        "queue": "",
        "current_state": "",
        "override_timeout": 0,
        "override_current_state": "",
        "override_auto_target_state": "",
    },
    "GetNextTaskGroup": {
        "queues": [],
        "current_state": "",
        "override_timeout": 0,
        "override_current_state": "",
        "override_auto_target_state": "",
    },
    "UpdateTask": {
        "uuid": "",
        "queue": "",
        "current_state": "",
        "auto_target_state": "",
        "timeout": 0,
        "new_state": "",
        "priority": 0,
    },
    "CompleteTask": {"uuid": "", "queue": "", "current_state": ""},
    "CancelTask": {"uuid": "", "queue": "", "current_state": ""},
    "CleanUpTimedOut": {"at_time": 0, "queue": ""},
    "GetQueues": {},
    "GetQueueTaskCounts": {},
    "GetTaskStateCounts": {"queue": ""},
    "GetQueueAndStateCounts": {},
}
"""The required fields of each request, with values that stand for the defaults."""


class Refused(Exception):
    """A status other than 0."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(status, error)
        self.status, self.error = status, error


def frame(envelope: bytes) -> bytes:
    """Return an envelope with its length before it."""
    return len(envelope).to_bytes(4, "big") + envelope


def request(operation: str, payload: bytes, /, **others: Any) -> bytes:
    """Return the frame of a request; ``others`` are fields of its envelope, and None leaves one out."""
    fields = {
        "v": 1,
        "service": "CorndogsService",
        "op": operation,
        "payload": cbor2.CBORTag(24, payload),
        "id": 1,
        **others,
    }
    return frame(cbor2.dumps({name: value for name, value in fields.items() if value is not None}))


def response(payload: object, /, **others: Any) -> bytes:
    """Return the frame of a response with this message; ``others`` as for ``request``."""
    fields = {"v": 1, "status": 0, "payload": cbor2.CBORTag(24, cbor2.dumps(payload)), "id": 1, **others}
    return frame(cbor2.dumps({name: value for name, value in fields.items() if value is not None}))


class Wire:
    """One connection to ``host:port``, or what a listener has accepted."""

    def __init__(self, address: str | socket.socket) -> None:
        if isinstance(address, str):
            host, _, port = address.rpartition(":")
            address = socket.create_connection((host, int(port)), 10)
        self.socket = address
        self.socket.settimeout(20)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Wire":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def envelope(self) -> dict[str, Any] | None:
        """Return the next envelope; None where the other end has closed the connection."""
        try:
            header = self._file.read(4)
            if len(header) < 4:
                return None
            return dict(cbor2.loads(self._file.read(int.from_bytes(header, "big"))))
        except ConnectionResetError:
            return None

    def message(self) -> dict[str, Any]:
        """Return the message of the next envelope; raises ``Refused``."""
        envelope = self.envelope()
        assert envelope is not None, "the connection was closed"
        if envelope["status"] != 0:
            raise Refused(envelope["status"], envelope["error"])
        return dict(cbor2.loads(envelope["payload"].value))

    def call(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Make a call; required fields that are not named have their defaults. Raises ``Refused``."""
        self.send(request(operation, cbor2.dumps(REQUEST_DEFAULTS[operation] | fields)))
        return self.message()
