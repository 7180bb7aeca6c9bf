"""HTTP requests to other hosts, and their answers."""

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from reactorcide.lib.records import record


@record(kw_only=True)
class HttpRequest:
    """A request to another host."""

    method: str
    url: str
    """``http`` or ``https``, without credentials."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = b""


@record(kw_only=True)
class HttpAnswer:
    """An answer of another host."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """By their names in small letters."""
    body: bytes = b""
    """The body, or its beginning if it is long or did not arrive in time."""

    @property
    def is_success(self) -> bool:
        """Return whether the request was accepted."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the body as JSON; ``None`` if it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None
