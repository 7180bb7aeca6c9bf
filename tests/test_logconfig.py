"""The service's own log."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from reactorcide import logconfig


@pytest.fixture
def hidden() -> Iterator[None]:
    token = logconfig.hide.set(lambda text: text.replace('p"w', "[REDACTED]"))
    yield
    logconfig.hide.reset(token)


@pytest.mark.parametrize("formatter", [logconfig.TextFormatter(), logconfig.JsonFormatter()])
def test_secrets_are_in_no_part_of_a_line(formatter: logging.Formatter, hidden: None) -> None:
    try:
        raise ValueError(len('p"w'), 'p"w')
    except ValueError:
        said = {
            "msg": "a %s",
            "args": ('p"w',),
            "reason": 'its p"w',
            "attempt": 1,
            "exc_info": sys.exc_info(),
        }
        line = formatter.format(logging.makeLogRecord(said))
    for part in ("a [REDACTED]", "its [REDACTED]", "ValueError: (3, '[REDACTED]')"):
        assert part in line
    assert 'p"w' not in line
    assert 'p\\"w' not in line
    if isinstance(formatter, logconfig.JsonFormatter):
        assert json.loads(line)["attempt"] == 1
