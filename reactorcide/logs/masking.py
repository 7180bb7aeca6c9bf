"""Replacing secrets in the output of a job, before it is stored or shown."""

from collections.abc import Collection, Iterator
from functools import partial

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from reactorcide import logconfig
from reactorcide.domain.definition import MIN_SECRET_CHARS, JobDefinition
from reactorcide.domain.secrets import REDACTED, secrets_of

_REDACTED = REDACTED.encode()
_MIN_LINE_CHARS = 8
"""Shorter lines of a multi-line secret are mostly braces and the like."""
_MAX_DFA_BYTES = 16 << 10
"""Larger patterns get a smaller automaton: the fastest takes up to 1 KiB of memory per byte of them."""
_TAIL_BYTES = 8
_MAX_COMPARISONS = 64
"""Prefixes of secrets that the end of one piece of output is compared with."""


class Masker:
    """Replaces secrets in one stream. It has no state between pieces, so that a new one can continue there.

    The stream is read from left to right: where secrets begin, the longest of them is replaced, and reading
    continues after it. Each line of a multi-line secret is a secret, too. A returned piece is the number of
    bytes consumed, and the text to write for them. A possible start of a secret, always shorter than the
    longest secret, is held back until more arrives or the stream ends.
    """

    def __init__(self, secrets: Collection[str]) -> None:
        self._patterns = sorted(set(_patterns(secrets)), key=len, reverse=True)
        self._held = b""
        if not self._patterns:
            return
        self._joined = b"".join(self._patterns)
        is_small = len(self._joined) <= _MAX_DFA_BYTES
        self._automaton = BytesAhoCorasick(
            self._patterns,
            matchkind=MatchKind.LeftmostLongest,
            implementation=Implementation.DFA if is_small else Implementation.ContiguousNFA,
        )
        self._short_prefixes = frozenset(
            pattern[:size]
            for pattern in self._patterns
            for size in range(1, min(len(pattern), _TAIL_BYTES + 1))
        )

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take the next bytes of the stream; returns one piece, or none if all of it is held back."""
        if not self._patterns:
            return [(len(data), data)] if data else []
        data = self._held + data
        return self._mask(data, self._incomplete_from(data, 0))

    def end(self) -> list[tuple[int, bytes]]:
        """Return the text held back, at the end of the stream."""
        return self._mask(self._held, len(self._held)) if self._held else []

    def whole(self, data: bytes) -> bytes:
        """Return the text for a stream that has nothing but ``data``."""
        return b"".join(text for _, text in self.feed(data) + self.end())

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
                # A secret that begins inside this one is part of it.
                stop = self._incomplete_from(data, end)
        self._held = data[stop:]
        if not stop:
            return []
        rest = data[position:stop]
        return [(stop, b"".join([*parts, rest]) if parts else rest)]

    def _incomplete_from(self, data: bytes, start: int) -> int:
        """Return a position, at least ``start``, before which no secret is incomplete.

        It is the first position at which the rest is a prefix of a secret. For secrets that repeat themselves
        it may be an earlier one: comparing with each of their prefixes would be quadratic.
        """
        end = len(data)
        tail = data[max(start, end - _TAIL_BYTES) :]
        longest = 0
        comparisons = 0
        # Mostly false, which saves comparing with each of them.
        if len(tail) == _TAIL_BYTES and tail in self._joined:
            for pattern in self._patterns:
                # Not the whole pattern: a complete secret is not held back.
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
            longest = next((size for size in sizes if tail[-size:] in self._short_prefixes), 0)
        return end - longest


def masked(text: str, secrets: Collection[str]) -> str:
    """Return one of the service's own texts about a job, without the job's secrets."""
    if not secrets:
        return text
    # A lone surrogate stands for a byte of a file name that is not UTF-8.
    return Masker(secrets).whole(text.encode(errors="surrogatepass")).decode(errors="surrogatepass")


def hide_in_own_log(definition: JobDefinition) -> None:
    """Replace a job's secrets in all that this thread logs, until it is called for another job."""
    secrets = secrets_of(definition)
    logconfig.hide.set(partial(masked, secrets=secrets) if secrets else str)


def _patterns(secrets: Collection[str]) -> Iterator[bytes]:
    for secret in secrets:
        texts = [secret]
        # A shell drops trailing line ends when it reads a value from a file or a command.
        trimmed = secret.strip("\r\n")
        if len(trimmed) >= MIN_SECRET_CHARS:
            texts.append(trimmed)
        if "\n" in secret:
            lines = secret.split("\n")
            lines += [line.removesuffix("\r") for line in lines]
            texts += [line for line in lines if len(line) >= _MIN_LINE_CHARS]
        yield from (text.encode(errors="surrogatepass") for text in texts if text)
