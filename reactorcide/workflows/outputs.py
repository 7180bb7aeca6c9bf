"""The file that a job writes its outputs to: ``KEY=VALUE`` lines, or a JSON object."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from reactorcide.domain.outputs import Outputs, Values
from reactorcide.workflows.problems import quoted
from reactorcide.workflows.references import OUTPUT_KEY

_KEY = re.compile(OUTPUT_KEY, re.ASCII)
_GROUPS = ("vars", "outputs")


class NotOutputs(Exception):
    """The file cannot be read; the message is the rest of a sentence. Never leaves the caller."""


def parse(data: bytes, is_secret: Callable[[str], bool]) -> Outputs:
    """Read a file of outputs; ``is_secret`` tells whether a text has a secret in it. Raises ``NotOutputs``.

    Of the object ``{"vars": {…}, "outputs": {…}}`` each is read. Values are texts, numbers and booleans, the
    latter as they are written. Linear in the size.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise NotOutputs("is not UTF-8") from exc

    def described(text: str) -> str:
        return "a secret" if is_secret(text) else quoted(text)

    written = _object(text) if text.lstrip().startswith("{") else {"outputs": _lines(text, described)}
    if not written or not all(key in _GROUPS and isinstance(value, dict) for key, value in written.items()):
        written = {"outputs": written}

    def checked(values: Mapping[str, Any]) -> Values:
        for key in values:
            if _KEY.fullmatch(key) is None or is_secret(key):
                raise NotOutputs(f"has as a key {described(key)}; a key is of letters, digits, '_' and '-'")
        texts = {key: _text(key, value) for key, value in values.items()}
        return {key: None if is_secret(text) else text for key, text in texts.items()}

    return Outputs(checked(written.get("outputs", {})), checked(written.get("vars", {})))


def _lines(text: str, described: Callable[[str], str]) -> dict[str, str]:
    values = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise NotOutputs(f"has in line {number} {described(line)}, which is not KEY=VALUE")
        values[key] = value
    return values


def _object(text: str) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = json.loads(text, parse_int=str, parse_float=str, parse_constant=_refused)
    except RecursionError as exc:
        raise NotOutputs("is nested too deep") from exc
    except ValueError as exc:
        raise NotOutputs(f"is not a JSON object: {exc}") from exc
    return parsed


def _refused(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _text(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        raise NotOutputs(f"has for {key} neither a text nor a number nor a boolean; write it as a text")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise NotOutputs(f"has for {key} a value with NUL, or half of a surrogate pair")
    return value
