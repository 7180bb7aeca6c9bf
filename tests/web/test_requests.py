"""Parsing JSON: exactness and cost."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from reactorcide.domain.errors import InvalidInput
from reactorcide.web.api.jobs.request import JobRequest
from reactorcide.web.errors import InvalidFields, validation_failed
from reactorcide.web.requests import StrictJSON, _object
from tests.support.contract import app


def read(text: str) -> Any:
    """Return what the service reads."""
    return StrictJSON(app()).loads(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5.0", 5), ("5e2", 500), ("-0.0", 0), ("0.5", 0.5), ("1e300", 1e300), ("9007199254740993.0", 2.0**53)],
)
def test_integral_numbers_are_integers_in_every_notation(text: str, value: float) -> None:
    number = read(text)
    assert (number, type(number)) == (value, type(value))


def test_duplicate_key_is_detected_in_linear_time() -> None:
    calls = 0

    class Key(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return super().__hash__()

        def __eq__(self, other: object) -> bool:
            nonlocal calls
            calls += 1
            return super().__eq__(other)

    pairs = [(Key(f"key-{number}"), None) for number in range(10_000)]
    with pytest.raises(InvalidInput, match="'key-9999' occurs more than once"):
        _object([*pairs, (Key("key-9999"), None)])
    assert calls < 30_000


def test_message_shows_the_beginning_of_a_long_key() -> None:
    key = json.dumps("k" * 1_000_000)
    with pytest.raises(InvalidInput) as raised:
        read(f"{{{key}: 1, {key}: 2}}")
    assert len(str(raised.value)) < 200


def test_error_names_at_most_twenty_shortened_fields() -> None:
    with pytest.raises(ValidationError) as invalid:
        JobRequest.model_validate({f"{number}{'x' * 10_000}": 1 for number in range(1000)})
    with pytest.raises(InvalidFields) as raised:
        validation_failed(invalid.value)
    assert len(raised.value.details) == 20
    assert len(str(raised.value)) < 10_000
