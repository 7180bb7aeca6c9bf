"""Parsing the body of a delivery, in which any field may be missing or have the wrong type."""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from reactorcide.domain.errors import InvalidInput

Headers = Mapping[str, str]
"""The fields of a request's header; the names are in lower case."""

FORM = "application/x-www-form-urlencoded"
MAX_TEXT_CHARS = 4096
"""Longer texts are cut."""
_MAX_REF_CHARS = 255
_MAX_FORM_FIELDS = 16
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NO_SHA = re.compile(r"0{40}|0{64}")


class Payload:
    """A JSON object. Missing or ``null`` fields are empty; wrong types raise ``InvalidInput``."""

    def __init__(self, members: Mapping[str, Any], path: str = "") -> None:
        self._members = members
        self._path = path

    def __bool__(self) -> bool:
        return bool(self._members)

    def __contains__(self, name: str) -> bool:
        return self._members.get(name) is not None

    def part(self, name: str) -> "Payload":
        """Return the object with a name."""
        return Payload(self._get(name, dict, "an object") or {}, f"{self._path}{name}.")

    def parts(self, name: str) -> "list[Payload]":
        """Return the objects in the array with a name, without items of other types."""
        items = self._get(name, list, "an array") or []
        return [Payload(item, f"{self._path}{name}[].") for item in items if isinstance(item, dict)]

    def text(self, *names: str) -> str:
        """Return the first non-empty text among these names."""
        for name in names:
            text: str | None = self._get(name, str, "a text")
            if text:
                # No lone surrogate, which cannot be stored, and no NUL, which a variable cannot contain.
                return text[:MAX_TEXT_CHARS].encode("utf-8", "replace").decode().replace("\0", "\ufffd")
        return ""

    def words(self, name: str) -> list[str]:
        """Return the texts in the array with a name."""
        items = self._get(name, list, "an array") or []
        return [item[:MAX_TEXT_CHARS] for item in items if isinstance(item, str)]

    def ref(self, *names: str) -> str:
        """Return a text that names a branch, a tag or a full ref."""
        text = self.text(*names)
        if len(text) > _MAX_REF_CHARS:
            raise InvalidInput(f"the payload's {self._path}{names[0]} is longer than {_MAX_REF_CHARS}")
        return text

    def sha(self, name: str) -> str:
        """Return a commit; empty if it is all zeros, which means no commit."""
        text = self.text(name)
        if not text or _NO_SHA.fullmatch(text):
            return ""
        if not _SHA.fullmatch(text):
            raise InvalidInput(f"the payload's {self._path}{name} is not a commit of 40 or 64 hex digits")
        return text

    def url(self, *names: str) -> str:
        """Return the URL of a page; empty if it is not http or https."""
        text = self.text(*names)
        return text if text.startswith(("https://", "http://")) and text.isprintable() else ""

    def number(self, name: str) -> int:
        """Return a whole number; 0 if it is missing."""
        number: int | None = self._get(name, int, "a number")
        if number is None or number is True or number is False:
            return 0
        if not 0 <= number < 2**63:
            raise InvalidInput(f"the payload's {self._path}{name} is out of range")
        return number

    def flag(self, name: str) -> bool:
        """Return a boolean; false if it is missing."""
        return bool(self._get(name, bool, "true or false"))

    def _get(self, name: str, kind: type, phrase: str) -> Any:
        value = self._members.get(name)
        if value is not None and not isinstance(value, kind):
            raise InvalidInput(f"the payload's {self._path}{name} is not {phrase}")
        return value


def parse(headers: Headers, body: bytes) -> Payload:
    """Return the JSON object of a body, or of the field ``payload`` of a form; raises ``InvalidInput``."""
    try:
        text = body.decode("utf-8")
        if headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
            fields = parse_qs(text, errors="strict", max_num_fields=_MAX_FORM_FIELDS)
            text = fields.get("payload", [""])[0]
        value = json.loads(text)
    except UnicodeDecodeError as exc:
        raise InvalidInput("the payload is not UTF-8") from exc
    except RecursionError as exc:
        raise InvalidInput("the payload is nested too deeply") from exc
    except json.JSONDecodeError as exc:
        raise InvalidInput(f"the payload is not JSON: {str(exc)[:200]}") from exc
    except ValueError as exc:
        # Of the form's fields, or of Python, which reads no such numbers.
        raise InvalidInput(
            "the payload is not JSON: too many digits in a number, or fields in a form"
        ) from exc
    if not isinstance(value, dict):
        raise InvalidInput("the payload is not a JSON object")
    return Payload(value)
