"""Reading the log of a job: a part of it, or following it while it grows."""

from collections.abc import Generator, Iterator

from reactorcide.domain.errors import InvalidInput, NotFound, ObjectNotFound
from reactorcide.domain.jobs import Job, service_log_key
from reactorcide.jobs import StoredJobs
from reactorcide.lib.records import record
from reactorcide.logs.reader import STREAMS, LogView, Piece, follow_log, with_times
from reactorcide.logs.search import SearchResult
from reactorcide.logs.search import search as find


@record(kw_only=True)
class LogPart:
    """A part of a log; ``None`` means the last attempt, the beginning, the end, and both streams."""

    attempt: int | None = None
    tail: int | None = None
    from_line: int | None = None
    """From 1; if a stream is given, only its lines count."""
    lines: int | None = None
    stream: str | None = None
    timestamps: bool = False

    @property
    def kind(self) -> int | None:
        """The stream's number in the index; ``None`` is both streams."""
        return None if self.stream is None else STREAMS[self.stream]


@record
class LogPosition:
    """A position in a job's logs, at which a follower continues. Written ``attempt:offset``."""

    attempt: int
    offset: int

    def __str__(self) -> str:
        return f"{self.attempt}:{self.offset}"


@record
class LogBytes:
    """The bytes to send; ``start`` and ``end`` are offsets in the log, if it is a contiguous part."""

    view: LogView
    start: int
    end: int
    changed: Iterator[bytes] | None
    """Whether it has times, or is one stream; then its length is unknown."""
    lines: int
    """The current number of lines of the log (of the stream)."""

    def chunks(self) -> Iterator[bytes]:
        """Return the bytes."""
        return self.view.read(self.start, self.end) if self.changed is None else self.changed


def read_service(context: StoredJobs, job: Job, service: str, attempt: int | None) -> Iterator[bytes]:
    """Return the log of a service of a job's attempt, the last one by default; raises ``NotFound``."""
    key = service_log_key(job.job_id, attempt or job.attempt, service)
    try:
        return context.objects.read(key)
    except (ObjectNotFound, InvalidInput) as exc:
        raise NotFound(f"there is no log of a service {service!r} of this job, or not yet") from exc


def read(context: StoredJobs, job: Job, part: LogPart) -> LogBytes:
    """Return a part of the current log of an attempt."""
    view = _view(context, job, part)
    start, end = 0, view.end
    if part.tail is not None:
        start = view.tail_start(part.tail, part.kind)
    else:
        first = (part.from_line or 1) - 1
        start = view.line_start(first, part.kind)
        if part.lines is not None:
            end = view.line_start(first + part.lines, part.kind)
    changed = None
    if part.kind is not None or part.timestamps:
        changed = _text(view, part, start, end)
    return LogBytes(view, start, end, changed, view.line_count(part.kind))


def search(
    context: StoredJobs, job: Job, part: LogPart, text: str | None, *, limit: int, timeout_s: float
) -> SearchResult:
    """Search the part of a log from ``from_line`` on for a text, or (``None``) for the words of errors."""
    view = _view(context, job, part)
    first_line = part.from_line or 1
    start = view.line_start(first_line - 1, part.kind)
    pieces = view.pieces(start, view.end, part.kind)
    chunks = view.read(start, view.end) if part.kind is None else (piece.data for piece in pieces)
    return find(chunks, text, first_line=first_line, limit=limit, timeout_s=timeout_s)


def start_of(context: StoredJobs, job: Job, part: LogPart, position: LogPosition | None) -> LogPosition:
    """Return where a follower starts: at a position, at the last lines, or at the beginning."""
    if position is not None:
        _existing(job, position.attempt)
        return position
    number = _existing(job, part.attempt)
    offset = 0
    if part.tail is not None:
        offset = _view(context, job, part).tail_start(part.tail, part.kind)
    return LogPosition(number, offset)


def follow(context: StoredJobs, job: Job, part: LogPart, start: LogPosition) -> Generator[bytes, None, None]:
    """Yield a growing log until it closes; without an attempt also the logs of all later attempts.

    Yields ``b""`` repeatedly while nothing arrives; see ``follow_log``.
    """
    for _, view, begin, end in _parts(context, job, part, start):
        if begin == end:
            yield b""
        elif part.kind is None and not part.timestamps:
            yield from view.read(begin, end)
        else:
            yield from _text(view, part, begin, end)


def follow_pieces(
    context: StoredJobs, job: Job, part: LogPart, start: LogPosition
) -> Generator[tuple[int, Piece] | None, None, None]:
    """Yield what is written, with its attempt's number, like ``follow``; ``None`` while nothing comes."""
    for attempt, view, begin, end in _parts(context, job, part, start):
        if begin == end:
            yield None
        for piece in view.pieces(begin, end, part.kind):
            yield attempt, piece


def as_it_is(context: StoredJobs, job: Job) -> Job | None:
    """Return the current state of a followed job; ``None`` if it was removed."""
    return context.store.jobs.find(job.job_id)


def _parts(
    context: StoredJobs, job: Job, part: LogPart, start: LogPosition
) -> Iterator[tuple[int, LogView, int, int]]:
    number, offset = start.attempt, start.offset
    while True:
        current = number
        for view, begin, end in follow_log(
            context.logs,
            context.notifier,
            job.job_id,
            current,
            lambda: context.store.attempts.log_is_closed(job.job_id, current),  # noqa: B023  # used before it changes
            start=offset,
        ):
            yield current, view, begin, end
        if part.attempt is not None or context.notifier.closed:
            return
        latest = as_it_is(context, job)
        if latest is None or latest.attempt == number:
            return
        number, offset = number + 1, 0


def _view(context: StoredJobs, job: Job, part: LogPart) -> LogView:
    view = LogView(context.logs, job.job_id, _existing(job, part.attempt))
    for field, is_requested in (("timestamps", part.timestamps), ("stream", part.stream is not None)):
        if is_requested and not view.is_indexed:
            raise InvalidInput(f"{field}: this log was written by a version that did not keep that", field)
    return view


def _text(view: LogView, part: LogPart, start: int, end: int) -> Iterator[bytes]:
    """Return the bytes between two offsets, limited to the part's stream and with times if requested."""
    pieces = view.pieces(start, end, part.kind)
    if part.timestamps:
        return with_times(pieces, begins_line=part.kind is not None or view.begins_line(start))
    return (piece.data for piece in pieces)


def _existing(job: Job, attempt: int | None) -> int:
    if attempt is None:
        return job.attempt
    if not 1 <= attempt <= job.attempt:
        raise NotFound(f"the job has no attempt {attempt}; its last one is {job.attempt}")
    return attempt
