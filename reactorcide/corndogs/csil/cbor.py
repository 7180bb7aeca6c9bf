"""CBOR (RFC 8949) as CSIL-RPC uses it, read with bounds."""

from reactorcide.domain.errors import ConfigurationError

try:
    import cbor2
except ModuleNotFoundError as exc:
    if exc.name != "cbor2":
        raise
    raise ConfigurationError(
        "CSIL, the protocol of Corndogs after 0.3, needs the package cbor2: "
        "run \"pip install 'reactorcide[scale]'\" in the environment of Reactorcide"
    ) from exc

EMBEDDED_CBOR = 24
"""The tag of a byte string that holds another CBOR item; the only tag that is read."""

_MAX_DEPTH = 16
_BYTES, _TEXT, _ARRAY, _MAP, _TAG = 2, 3, 4, 5, 6
_ONE_BYTE, _EIGHT_BYTES = 24, 27


class Malformed(Exception):
    """Bytes that are no message; the text says why."""


def encode(value: object) -> bytes:
    """Return a value as CBOR, with the keys of maps in Corndogs' order."""
    return cbor2.dumps(value, canonical=True)


def embedded(item: bytes) -> cbor2.CBORTag:
    """Return an encoded item as a value that another one can contain."""
    return cbor2.CBORTag(EMBEDDED_CBOR, item)


def unpacked(value: object) -> object:
    """Return the content of a value with the tag of embedded CBOR."""
    return value.value if isinstance(value, cbor2.CBORTag) else value


def decode(data: bytes, max_items: int) -> object:
    """Return the value of one item, which may contain ``max_items`` others. Raises ``Malformed``.

    An item can be one byte long, and as an object it has more than fifty: so not the number of bytes, but the
    number of items bounds the memory and the time.
    """
    _check(data, max_items)
    try:
        return cbor2.loads(data, allow_duplicate_keys=False, strict_hashable_types=True)
    except cbor2.CBORError as exc:
        raise Malformed(f"csil cbor: {exc}") from exc


def _check(data: bytes, max_items: int) -> None:
    """Raise ``Malformed`` unless the data is one item of the kinds that Corndogs uses, and nothing else.

    It reads only the heads, in one pass. Other tags stand for dates, patterns and numbers of any size, which
    may be costly to make.
    """
    missing = [1]  # items that are still to come, by level
    position = 0
    while missing:
        if missing[-1] == 0:
            missing.pop()
            continue
        missing[-1] -= 1
        if position >= len(data):
            raise Malformed("csil cbor: the data ends within an item")
        kind, argument = data[position] >> 5, data[position] & 0x1F
        position += 1
        if argument > _EIGHT_BYTES:
            raise Malformed("csil cbor: an indefinite length")
        if argument >= _ONE_BYTE:
            size = 1 << (argument - _ONE_BYTE)
            argument = int.from_bytes(data[position : position + size])
            position += size
        if kind in (_BYTES, _TEXT):
            position += argument
        elif kind in (_ARRAY, _MAP, _TAG):
            if kind == _TAG and argument != EMBEDDED_CBOR:
                raise Malformed(f"csil cbor: the tag {argument}")
            inner = {_ARRAY: argument, _MAP: 2 * argument, _TAG: 1}[kind]
            max_items -= inner
            if max_items < 0 or len(missing) > _MAX_DEPTH:
                raise Malformed("csil cbor: too many items, or too deeply nested ones")
            missing.append(inner)
    if position != len(data):
        raise Malformed("csil cbor: bytes after the item, or missing ones")
