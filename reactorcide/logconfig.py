"""The service's own log: one line per event, as text or as JSON."""

import json
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that this thread answers; each line logged meanwhile has it."""

hide: ContextVar[Callable[[str], str]] = ContextVar("hide", default=str)
"""Removes the secrets of the job that this thread works on from each line that it logs."""


def printable(text: str) -> str:
    """Return ``text`` on one line, without characters that could control a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(log_format: str, level: str) -> None:
    """Send all log lines to stderr, as ``text`` or ``json``; replaces earlier handlers."""
    # No format has them, and each line would take longer.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(_add_request_id)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("botocore", "docker", "peewee", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _add_request_id(record: logging.LogRecord) -> bool:
    current = request_id.get()
    if current is not None and not hasattr(record, "request_id"):
        record.request_id = current
    return True


def _fields(record: logging.LogRecord) -> dict[str, object]:
    hidden = hide.get()
    return {
        name: hidden(value) if isinstance(value, str) else value
        for name, value in vars(record).items()
        if name not in _STANDARD
    }


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message`` and the ``extra`` fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": hide.get()(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = hide.get()(self.formatException(record.exc_info))
        # In ASCII, without control characters.
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """A line of text: the message, then the fields that are not part of it."""

    _IN_MESSAGE = frozenset({"method", "path", "status", "duration_ms"})

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; text from outside cannot start another one."""
        fields = _fields(record).items()
        extra = "".join(f" {name}={value}" for name, value in fields if name not in self._IN_MESSAGE)
        text = f"{_time(record)} {record.levelname.lower():7} {hide.get()(record.getMessage())}{extra}"
        text = printable(text)
        if record.exc_info:
            trace = hide.get()(self.formatException(record.exc_info))
            text += "".join(f"\n{printable(line)}" for line in trace.split("\n"))
        return text
