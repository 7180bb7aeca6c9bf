"""Frames and envelopes of CSIL-RPC: what is around every message."""

from reactorcide.corndogs.csil.cbor import Malformed, decode, embedded, encode, unpacked
from reactorcide.lib.records import record

SERVICE = "CorndogsService"
HEADER_BYTES = 4
OK, MALFORMED, UNKNOWN_OPERATION, INTERNAL, UNAVAILABLE = 0, 1, 2, 6, 7
STATUS_NAMES = {
    OK: "OK",
    MALFORMED: "INVALID_ARGUMENT",
    UNKNOWN_OPERATION: "UNIMPLEMENTED",
    3: "UNAUTHENTICATED",
    4: "PERMISSION_DENIED",
    5: "UNIMPLEMENTED",
    INTERNAL: "INTERNAL",
    UNAVAILABLE: "UNAVAILABLE",
    8: "DEADLINE_EXCEEDED",
}
"""The gRPC status that is most like each registered one."""
SERVICE_ERROR = "ServiceError"
"""The variant of an application's error, with status 0."""

_VERSION = 1
_MAX_ITEMS = 64


@record
class Request:
    """What a client asks. ``id`` says which request an answer is for."""

    service: str
    operation: str
    payload: bytes
    id: int | None


@record
class Response:
    """What a server answers: a message of the type ``variant``, or a status other than 0 with ``error``."""

    id: int | None
    status: int = OK
    payload: bytes = b""
    variant: str = ""
    error: str = ""


def encode_request(request: Request) -> bytes:
    """Return the frame of a request."""
    fields = {
        "v": _VERSION,
        "service": request.service,
        "op": request.operation,
        "payload": embedded(request.payload),
    }
    if request.id is not None:
        fields["id"] = request.id
    return _frame(fields)


def decode_request(envelope: bytes) -> Request:
    """Return the request in a frame, without its header. Raises ``Malformed``."""
    fields = _fields(envelope)
    tagged = fields.get("payload")
    payload = unpacked(tagged)
    service, operation = fields.get("service"), fields.get("op")
    if not isinstance(service, str) or not isinstance(operation, str):
        raise Malformed("csil envelope: no service or op")
    if payload is tagged or not isinstance(payload, bytes):
        raise Malformed("csil envelope: no payload in tag 24")
    return Request(service, operation, payload, _id(fields))


def encode_response(response: Response) -> bytes:
    """Return the frame of a response."""
    fields = {"v": _VERSION, "status": response.status, "payload": embedded(response.payload)}
    if response.id is not None:
        fields["id"] = response.id
    if response.status == OK:
        fields["variant"] = response.variant
    else:
        fields["error"] = response.error
    return _frame(fields)


def decode_response(envelope: bytes) -> Response:
    """Return the response in a frame, without its header. Raises ``Malformed``."""
    fields = _fields(envelope)
    status, payload = fields.get("status"), unpacked(fields.get("payload", b""))
    variant, error = fields.get("variant", ""), fields.get("error", "")
    if type(status) is not int or not isinstance(payload, bytes):
        raise Malformed("csil envelope: no status, or a payload that is none")
    if not isinstance(variant, str) or not isinstance(error, str):
        raise Malformed("csil envelope: a variant or an error that is no text")
    return Response(_id(fields), status, payload, variant, error)


def _frame(fields: dict[str, object]) -> bytes:
    envelope = encode(fields)
    return len(envelope).to_bytes(HEADER_BYTES) + envelope


def _fields(envelope: bytes) -> dict[object, object]:
    fields = decode(envelope, _MAX_ITEMS)
    if not isinstance(fields, dict) or type(fields.get("v")) is not int or fields["v"] != _VERSION:
        raise Malformed("csil envelope: no map with v 1")
    return fields


def _id(fields: dict[object, object]) -> int | None:
    number = fields.get("id")
    return number if type(number) is int and number >= 0 else None
