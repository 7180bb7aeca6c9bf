"""Parsing the body of a delivery: a large one in a separate process, with limits on time and memory.

JSON takes up to forty times its bytes in memory, and no other thread runs while it is parsed.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from reactorcide.domain.errors import InfrastructureError, InvalidInput
from reactorcide.domain.events import EventName
from reactorcide.domain.forges import ForgeEvent, ForgeKind, Ignored
from reactorcide.forges import FORGES
from reactorcide.lib import programs

MAX_HERE_BYTES = 1 << 20
"""A body of up to this size is parsed in this process, which is faster."""
_PROGRAM = "reactorcide.deliveries.reading"
_TIMEOUT_S = 60.0
_MAX_MEMORY_BYTES = 512 << 20


def read(kind: ForgeKind, headers: Mapping[str, str], body: bytes) -> ForgeEvent | Ignored:
    """Return the event of a delivery; see ``Forge.read``. Raises ``InvalidInput``."""
    if len(body) <= MAX_HERE_BYTES:
        return FORGES[kind].read(headers, body)
    answer = _run(json.dumps([kind.value, dict(headers)]).encode() + b"\n" + body)
    if "refused" in answer:
        raise InvalidInput(answer["refused"])
    if "ignored" in answer:
        return Ignored(answer["ignored"])
    return ForgeEvent(**answer | {"name": EventName(answer["name"])})


def _run(request: bytes) -> dict[str, Any]:
    try:
        written = programs.run(_PROGRAM, request, timeout_s=_TIMEOUT_S)
    except programs.TooSlow as exc:
        raise InvalidInput(f"reading the payload took longer than {_TIMEOUT_S:g} s") from exc
    except programs.TooLarge as exc:
        raise InvalidInput("reading the payload takes more than 512 MiB of memory") from exc
    except programs.ProgramError as exc:
        raise InfrastructureError(f"a delivery cannot be read: {exc}") from exc
    answer: dict[str, Any] = json.loads(written)
    return answer


def main() -> None:
    """Read the delivery on standard input: a line with the kind and the headers, then the body."""
    programs.limit_memory(_MAX_MEMORY_BYTES)
    kind, headers = json.loads(sys.stdin.buffer.readline())
    body = sys.stdin.buffer.read()
    try:
        event = FORGES[ForgeKind(kind)].read(headers, body)
    except InvalidInput as exc:
        answer: dict[str, Any] = {"refused": str(exc)}
    else:
        answer = {"ignored": event.reason} if isinstance(event, Ignored) else asdict(event)
    json.dump(answer, sys.stdout)
