"""The ids of deliveries."""

import re
from collections.abc import Sequence

from reactorcide.domain.errors import InvalidInput
from reactorcide.forges.payload import Headers

_ID = re.compile(r"[!-~]{1,128}")


def first(headers: Headers, names: Sequence[str]) -> str:
    """Return the first of these fields that is present; empty if none is."""
    return next((headers[name] for name in names if headers.get(name)), "")


def delivery_id(headers: Headers, names: Sequence[str]) -> str:
    """Return the first of these fields that is present; raises ``InvalidInput``."""
    value = first(headers, names).strip()
    if not value:
        raise InvalidInput(f"the request has no {names[0]}, so it is no delivery of this project's forge")
    if _ID.fullmatch(value) is None:
        raise InvalidInput(f"the request's {names[0]} is not an id of 1 to 128 characters without spaces")
    return value
