"""Replacing secrets in what a job prints, before anybody sees it."""

from collections.abc import Collection, Iterator
from functools import partial

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from reactorcide import logconfig
from reactorcide.domain.definition import MIN_SECRET_CHARS, JobDefinition
from reactorcide.domain.secrets import REDACTED, secrets_of

_REDACTED = REDACTED.encode()
_LEAST_LINE_CHARS = 8
"""Shorter lines of a longer secret are mostly braces and the like."""
_MOST_DFA_BYTES = 16 << 10
"""The fastest automaton takes up to 1 KiB of memory for each byte of the patterns."""
_TAIL_BYTES = 8
_MAX_COMPARISONS = 64
"""Beginnings of secrets that the end of one piece of output is compared with."""


class Masker:
    """Replaces secrets in one stream; memoryless at every boundary it emits, so that a fresh one can go on.

    The stream is read from left to right: where secrets begin, the longest of them is replaced, and reading
    goes on behind it. Of a secret of several lines each line is one, too. What is returned are pieces: the
    number of bytes that were consumed, and what is to be written instead. What may begin a secret is held
    back, always less than the longest one, until more comes or the stream ends.
    """

    def __init__(self, secrets: Collection[str]) -> None:
        self._patterns = sorted(set(_patterns(secrets)), key=len, reverse=True)
        self._held = b""
        if not self._patterns:
            return
        self._joined = b"".join(self._patterns)
        is_small = len(self._joined) <= _MOST_DFA_BYTES
        self._automaton = BytesAhoCorasick(
            self._patterns,
            matchkind=MatchKind.LeftmostLongest,
            implementation=Implementation.DFA if is_small else Implementation.ContiguousNFA,
        )
        self._short_beginnings = frozenset(
            pattern[:size]
            for pattern in self._patterns
            for size in range(1, min(len(pattern), _TAIL_BYTES + 1))
        )

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take the next bytes of the stream; returns one piece, or none where all is held back."""
        if not self._patterns:
            return [(len(data), data)] if data else []
        data = self._held + data
        return self._mask(data, self._unfinished(data, 0))

    def end(self) -> list[tuple[int, bytes]]:
        """Return what was held back, at the end of the stream."""
        return self._mask(self._held, len(self._held)) if self._held else []

    def _mask(self, data: bytes, stop: int) -> list[tuple[int, bytes]]:
        """Mask ``data`` up to ``stop``, and hold back the rest."""
        parts = []
        position = 0
        for _, start, end in self._automaton.find_matches_as_indexes(data):
            if start >= stop:
                break
            parts += [data[position:start], _REDACTED]
            position = end
            if end > stop:
                # What may have begun in the midst of this secret is part of it.
                stop = self._unfinished(data, end)
        self._held = data[stop:]
        if not stop:
            return []
        rest = data[position:stop]
        return [(stop, b"".join([*parts, rest]) if parts else rest)]

    def _unfinished(self, data: bytes, start: int) -> int:
        """Return a position from ``start`` on before which no secret is unfinished.

        It is the first position whose rest begins a secret, but for secrets that repeat themselves: comparing
        with each of their beginnings would be quadratic, so more may be held back for these.
        """
        end = len(data)
        tail = data[max(start, end - _TAIL_BYTES) :]
        longest = 0
        comparisons = 0
        # Mostly false, which spares looking at each of them.
        if len(tail) == _TAIL_BYTES and tail in self._joined:
            for pattern in self._patterns:
                # A whole secret is not unfinished.
                size = pattern.rfind(tail, 0, -1) + _TAIL_BYTES
                while size >= _TAIL_BYTES and size > longest:
                    comparisons += 1
                    if comparisons > _MAX_COMPARISONS:
                        longest = max(longest, min(size, end - start))
                        break
                    if data.endswith(pattern[:size], start):
                        longest = size
                    size = pattern.rfind(tail, 0, size - 1) + _TAIL_BYTES
        if not longest:
            sizes = range(len(tail), 0, -1)
            longest = next((size for size in sizes if tail[-size:] in self._short_beginnings), 0)
        return end - longest


def masked(text: str, secrets: Collection[str]) -> str:
    """Return a text of the service's own about a job, without its secrets."""
    if not secrets:
        return text
    masker = Masker(secrets)
    # A lone surrogate stands for a byte of a file name that is no UTF-8.
    pieces = masker.feed(text.encode(errors="surrogatepass")) + masker.end()
    return b"".join(piece for _, piece in pieces).decode(errors="surrogatepass")


def hide_in_own_log(definition: JobDefinition) -> None:
    """Keep a job's secrets out of what this thread logs, until another job takes its place."""
    secrets = secrets_of(definition)
    logconfig.hide.set(partial(masked, secrets=secrets) if secrets else str)


def _patterns(secrets: Collection[str]) -> Iterator[bytes]:
    for secret in secrets:
        texts = [secret]
        # A shell leaves out the line ends at the end of what it takes in from a file or a command.
        trimmed = secret.strip("\r\n")
        if len(trimmed) >= MIN_SECRET_CHARS:
            texts.append(trimmed)
        if "\n" in secret:
            lines = secret.split("\n")
            lines += [line.removesuffix("\r") for line in lines]
            texts += [line for line in lines if len(line) >= _LEAST_LINE_CHARS]
        yield from (text.encode(errors="surrogatepass") for text in texts if text)
