"""Copying a command's output to the attempt's log, until the log is complete."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from time import monotonic

from reactorcide import crashpoints
from reactorcide.domain.errors import LogLost, ObjectStoreError
from reactorcide.logs.copy import copied_bytes
from reactorcide.logs.lines import HOLD_S
from reactorcide.logs.writer import LogWriter
from reactorcide.runner import ContainerGone, Exit, Output, OutputChunk
from reactorcide.worker.attempt.container import LOOK_S, Container, gone_because
from reactorcide.worker.attempt.ending import Ending
from reactorcide.worker.attempt.patience import Patience
from reactorcide.worker.interrupt import Interrupt, Reason

log = logging.getLogger("reactorcide.worker")

_SILENCE_S = 15.0
"""Interval of the check whether the container still runs, while there is no output."""
_EXIT_WAIT_S = 1.0
"""A command ends within milliseconds after the end of its output."""
_STORE_RETRY_S = 5.0
"""Each try reads the whole output again."""


class _CopyTooSlow(Exception):
    """The engine takes too long to return its copy of the output after the command's end."""

    def __init__(self, ended: Exit) -> None:
        super().__init__()
        self.ended = ended


class Recorder:
    """Copies the output of one attempt's command to the log.

    The log is complete when it has all output of a connection that ended with the command, or all of the
    engine's copy after the command's end. An engine returns some 100,000 lines of its copy a second, a busy
    one far fewer, so this has a time limit.
    """

    def __init__(
        self,
        container: Container,
        ending: Ending,
        interrupt: Interrupt,
        patiently: Patience,
        log_writer: LogWriter,
        log_fields: Mapping[str, object],
        *,
        output_start: int,
        copy_timeout_s: float,
    ) -> None:
        """``output_start`` is where the command's output begins in the log.

        ``copy_timeout_s`` is for the engine to return its own copy of the output once the command has ended.
        """
        self._container = container
        self._ending = ending
        self._interrupt = interrupt
        self._patiently = patiently
        self._log_writer = log_writer
        self._log_fields = log_fields
        self.output_start = output_start
        self._copy_timeout_s = copy_timeout_s
        self._output: Output | None = None
        self._copy = _LogCopy(log_writer, log_fields)
        self.problem: str | None = None
        """Why the log is not complete, if it is not."""

    @property
    def copy_bytes(self) -> int:
        """Estimated size of the engine's copy of the output, which the engine does not report."""
        return self._copy.copy_bytes

    def wake(self) -> None:
        """Check for the next signal at once; from any thread."""
        output = self._output
        if output is not None:
            output.wake()

    def record(self, attached: Output) -> Exit:
        """Log the whole output of the command, first from its connection; returns its end."""
        return self._record_attached(attached) or self.record_copy()

    def record_copy(self) -> Exit:
        """Log the whole output of the command, past and future, from the engine's copy.

        Returns the end of the command. Raises ``ContainerGone`` if that is unknown, and
        ``JobInterrupted`` when the service stops meanwhile.
        """
        while True:
            # A followed copy can lack its last piece; it is complete after the command's end.
            ended = self._container.wait(LOOK_S)
            try:
                whole = self._copy_again()
            except ContainerGone as exc:
                if ended is None:
                    raise
                self.problem = f"the end of its log is missing: {gone_because(exc)}"
                return ended
            except _CopyTooSlow as exc:
                self.problem = (
                    "its log may lack its end: the engine did not return the output within "
                    f"{self._copy_timeout_s:g} s (--collect-timeout)"
                )
                return exc.ended
            if whole and ended is not None and self._copy.end():
                return ended
            if not whole and self._no_room_is_awaited() and ended is not None:
                return ended

    def _record_attached(self, attached: Output) -> Exit | None:
        """Log the output of the connection; returns the end of the command, if the log is complete."""
        if not self._follow(attached):
            return None
        began_at = monotonic()
        ended = self._container.wait(_EXIT_WAIT_S)
        # A command's output ends with the command. If the command still runs, or the engine was unreachable,
        # the connection was lost, and the rest is in the engine's copy.
        in_time = ended is not None and ended.answered_at - began_at < _EXIT_WAIT_S
        return ended if in_time and self._copy.end() else None

    def _copy_again(self) -> bool:
        with closing(self._container.reread()) as output:
            # Only when the engine's copy can be read.
            self._patiently(lambda: self._log_writer.restart(self.output_start))
            return self._follow(output, self._copy_timeout_s)

    def _follow(self, output: Output, timeout_s: float = math.inf) -> bool:
        """Copy an output to the log until it ends; returns whether the log has all of it.

        Otherwise the rest is discarded, because a waiting reader would block the container. Raises
        ``JobInterrupted`` when the service stops: the container continues. Raises ``_CopyTooSlow`` if the
        output continues for more than ``timeout_s`` after the command's end.
        """
        self._output = output
        self._copy = copy = _LogCopy(self._log_writer, self._log_fields)
        self._ending.begin()
        began_at, is_silent, ends_by = monotonic(), True, math.inf
        with self._interrupt.calling(output.wake):
            while True:
                next_signal_s = self._ending.step()
                wait_s = HOLD_S if self._log_writer.holds else _SILENCE_S
                printed = output.read(min(next_signal_s, wait_s))
                if printed is None:
                    copy.flush()
                    return copy.is_whole
                copy.add(printed)
                if printed:
                    crashpoints.reached("output-half-read")
                    is_silent = False
                now = monotonic()
                if now - began_at >= _SILENCE_S:
                    if self._container.has_ended() and is_silent:
                        return copy.is_whole
                    began_at, is_silent = now, True
                if (ended := self._container.exit) is not None:
                    ends_by = min(ends_by, now + timeout_s)
                    if now >= ends_by:
                        raise _CopyTooSlow(ended)

    def _no_room_is_awaited(self) -> bool:
        """Wait until the log can be stored again; returns whether to give up, because of a cancel.

        Raises ``JobInterrupted`` when the service stops meanwhile.
        """
        self._patiently.rest(_STORE_RETRY_S)
        return self._interrupt.reason is Reason.CANCELLED


class _LogCopy:
    """Adds one output to the log, until its end or until the log cannot be stored."""

    def __init__(self, log_writer: LogWriter, log_fields: Mapping[str, object]) -> None:
        self._log_writer = log_writer
        self._log_fields = log_fields
        self.is_whole = True
        self.copy_bytes = 0

    def add(self, printed: Sequence[OutputChunk]) -> None:
        """Add chunks of output; without chunks, the partial lines that have waited long enough."""
        if not printed:
            if self._log_writer.holds:
                self.flush()
            return
        self._store(partial(self._log_writer.feed, printed))
        if self.is_whole:
            self.copy_bytes = self._log_writer.copied_bytes
        else:
            self.copy_bytes += sum(copied_bytes(len(data), data.count(b"\n")) for _, data in printed)

    def flush(self) -> None:
        """Add the partial lines."""
        self._store(self._log_writer.flush)

    def end(self) -> bool:
        """Add everything that is held back; returns whether the log is complete."""
        self._store(self._log_writer.end_output)
        return self.is_whole

    def _store(self, add: Callable[[], None]) -> None:
        if not self.is_whole:
            return
        try:
            add()
        except LogLost:
            raise
        except ObjectStoreError as exc:
            log.warning("the rest of its log is written when it has ended: %s", exc, extra=self._log_fields)
            self.is_whole = False
