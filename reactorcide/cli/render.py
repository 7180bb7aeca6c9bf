"""Output: tables and colours on a terminal, plain columns in a pipe, JSON for scripts."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click

from reactorcide.logconfig import printable as printable

_STYLES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "queued": "blue",
    "submitted": "blue",
    "submit_failed": "magenta",
}
_LINE_END = "\n"
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def utf8(name: str) -> str:
    """Return the name of a file; bytes that are not UTF-8 are replaced, since JSON cannot have them."""
    return os.fsencode(name).decode(errors="replace")


def as_json(value: Any) -> None:
    """Print ``value`` as JSON, in ASCII, because the reader may expect any encoding."""
    click.echo(json.dumps(value, indent=2))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, flexible: str = "") -> None:
    """Print rows below their column titles; only the column ``flexible`` is cut to the terminal's width.

    If stdout is not a terminal, nothing is cut.
    """
    cleaned = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, cells)) for cells in zip(columns, *cleaned, strict=True)]
        for row in (columns, *cleaned):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo(line.rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    view = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, *cells in zip(columns, *cleaned, strict=True):
        longest = max(map(len, (column, *cells)))
        view.add_column(
            column,
            no_wrap=True,
            overflow="ellipsis",
            min_width=min(longest, 8) if column == flexible else longest,
        )
    for row in cleaned:
        view.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(highlight=False).print(view)


def say(text: str, *, err: bool = False) -> None:
    """Print lines of text, with control characters escaped."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=err)


def line(text: str, *, style: str = "", err: bool = False) -> None:
    """Print a line as ``say`` does, styled if it goes to a terminal; never wrapped."""
    stream = sys.stderr if err else sys.stdout
    if not (style and stream.isatty()):
        say(text, err=err)
        return
    from rich.console import Console
    from rich.text import Text

    Console(stderr=err, highlight=False).print(Text(printable(text), style=style), soft_wrap=True)


def status_style(status: str) -> str:
    """Return the colour of a job's status."""
    return _STYLES.get(status, "")


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Show a spinner on stderr while the body waits, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(text)):
        yield


@contextmanager
def progress(text: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr, if that is a terminal; yields a function that takes new bytes."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(text, total=total_bytes)
        yield lambda count: bar.advance(task, count)


def age(moment: str) -> str:
    """Return how long ago an RFC 3339 time was: ``5 min``."""
    return _span((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def duration(job: dict[str, Any]) -> str:
    """Return how long a job has run, in total or up to now; empty if it has not started."""
    if job["started_at"] is None:
        return ""
    ended = datetime.now(UTC)
    if job["completed_at"] is not None:
        ended = datetime.fromisoformat(job["completed_at"])
    return _span((ended - datetime.fromisoformat(job["started_at"])).total_seconds())


def outcome(job: dict[str, Any]) -> str:
    """Return the result of a job as a phrase."""
    text = f"{job['status']} after {duration(job)}" if job["started_at"] else str(job["status"])
    return f"{text}: {printable(job['error'])}" if job["error"] else text


def tests_line(tests: dict[str, Any]) -> str:
    """Return how many tests passed and failed: ``412 passed, 2 failed``; empty without any test."""
    counts = {word: tests[word] for word in ("passed", "failed", "skipped")}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def failed_tests(tests: dict[str, Any], limit: int) -> list[str]:
    """Return a line for each failed test: its name, and the first line of its message."""
    lines = [
        f"{_test_name(item)}: {item['message'].partition(_LINE_END)[0]}" for item in tests["failures"][:limit]
    ]
    unlisted = tests["failed"] - len(lines)
    return [*lines, f"and {unlisted} more"] if unlisted else lines


def _test_name(item: dict[str, Any]) -> str:
    return " ".join(part for part in (item["suite"], item["name"]) if part)


def _span(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{max(0.0, seconds):.1f} s"
