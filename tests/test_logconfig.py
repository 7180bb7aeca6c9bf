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
        attributes = {
            "msg": "a %s",
            "args": ('p"w',),
            "reason": 'its p"w',
            "attempt": 1,
            "exc_info": sys.exc_info(),
        }
        line = formatter.format(logging.makeLogRecord(attributes))
    for part in ("a [REDACTED]", "its [REDACTED]", "ValueError: (3, '[REDACTED]')"):
        assert part in line
    assert 'p"w' not in line
    assert 'p\\"w' not in line
    if isinstance(formatter, logconfig.JsonFormatter):
        assert json.loads(line)["attempt"] == 1


@pytest.mark.parametrize("formatter", [logconfig.TextFormatter(), logconfig.JsonFormatter()])
def test_logged_text_does_not_control_a_terminal(formatter: logging.Formatter) -> None:
    hostile = "a\x1b]0;owned\x07\r\n\x7f\x9b31m\u202egnp\u2028\udcff"
    try:
        raise ValueError(hostile)
    except ValueError:
        record = logging.makeLogRecord(
            {"msg": "GET %s", "args": (hostile,), "field": hostile, "exc_info": sys.exc_info()}
        )
    lines = formatter.format(record).split("\n")
    assert all(line.isprintable() for line in lines)
    assert "owned" in lines[0]
    # Only the lines of the traceback stand by themselves.
    assert (len(lines) == 1) == isinstance(formatter, logconfig.JsonFormatter)
    assert "".join(lines).count("owned") == 3
