"""Reading JUnit XML as pytest, Maven, go-junit-report and jest-junit write it.

The standard library's expat reads it, as a stream: junitparser, and ElementTree below defusedxml, first build
the whole tree, many times the size of a hostile file, and know no bounds on depth or number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import NoReturn
from xml.parsers import expat

from reactorcide.domain.errors import ReactorcideError
from reactorcide.domain.reports import FailedTest
from reactorcide.lib.sizes import format_size

MAX_DEPTH = 64
MAX_CASES = 200_000
"""Of one file."""
MAX_CHARS = 4000
"""Of each text that is returned."""
MAX_TAG_BYTES = 256 << 10
_PIECE_BYTES = 1 << 16

_SUITES = ("testsuites", "testsuite")
_FAILED = ("failure", "error")


class NotJUnit(ReactorcideError):
    """A file is not JUnit XML, or is beyond a bound; the message says which."""


@dataclass(slots=True)
class JUnitResults:
    """The results in one file; ``failures`` are the first of those that failed, and their texts are cut."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[FailedTest] = field(default_factory=list)


def read_junit(path: str, data: bytes, *, deadline: float, max_failures: int) -> JUnitResults:
    """Return the results in the file ``path``; raises ``NotJUnit``.

    A test counts once, as failed if it has a failure or an error, as skipped if it is marked so, else as
    passed: also where Maven has repeated it until it passed. Takes time and memory linear in ``data``, and
    ends at ``deadline``, by ``time.monotonic``.
    """
    reader = _Reader(path, deadline, max_failures)
    parser = expat.ParserCreate()
    # One call for a text, not one for each of its lines.
    parser.buffer_text = True
    parser.buffer_size = _PIECE_BYTES
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        for start in range(0, len(data), _PIECE_BYTES):
            parser.Parse(data[start : start + _PIECE_BYTES], False)
            # Older versions of expat read an unfinished tag anew with each piece, and no other thread runs
            # while a tag is read.
            if start - parser.CurrentByteIndex > MAX_TAG_BYTES:
                raise NotJUnit(f"it has a tag or a comment of more than {format_size(MAX_TAG_BYTES)}")
        parser.Parse(b"", True)
    except expat.ExpatError as exc:
        problem = expat.ErrorString(exc.code)
        raise NotJUnit(
            f"it is not well-formed XML: {problem}, line {exc.lineno}, column {exc.offset}"
        ) from exc
    except (LookupError, ValueError) as exc:
        raise NotJUnit("it is in an encoding that cannot be read") from exc
    return reader.results


def _refuse_doctype(*_: object) -> NoReturn:
    # Entities, which grow or name other files, can only be declared there.
    raise NotJUnit("it has a DOCTYPE, which is not read")


class _Reader:
    """Counts the tests of one file while expat reads it."""

    def __init__(self, path: str, deadline: float, max_failures: int) -> None:
        self.results = JUnitResults()
        self._path = path
        self._deadline = deadline
        self._max_failures = max_failures
        self._cases = 0
        self._depth = 0
        self._suites: list[str] = []
        self._case: tuple[str, str] | None = None
        """The suite and the name of the test that is being read."""
        self._case_depth = 0
        self._is_skipped = False
        self._problem: tuple[str, str] | None = None
        """The message of the test's first failure, and what kind of error it is."""
        self._text: list[str] | None = None
        """The text of the failure that is being read."""
        self._text_chars = 0
        self._sole_text = ""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """See ``expat``'s ``StartElementHandler``."""
        if monotonic() >= self._deadline:
            raise NotJUnit("the time for reading test results was over")
        name = name.rpartition(":")[2]
        if self._depth == 0 and name not in _SUITES:
            raise NotJUnit(f"it is not JUnit XML: it begins with <{name[:MAX_CHARS]}>")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotJUnit(f"its elements are nested more than {MAX_DEPTH} deep")
        if self._case is not None:
            if self._depth == self._case_depth + 1:
                self._start_in_case(name, attributes)
        elif name in _SUITES:
            self._suites.append(_name(attributes))
        elif name == "testcase":
            self._start_case(attributes.get("classname") or self._suites[-1], _name(attributes))
        elif name in _FAILED:
            # Of a suite: what it needs could not be set up.
            self._start_case(self._suites[-1], "")
            self._start_in_case(name, attributes)

    def text(self, text: str) -> None:
        """See ``expat``'s ``CharacterDataHandler``."""
        if self._text is not None and self._text_chars < MAX_CHARS:
            self._text.append(text[: MAX_CHARS - self._text_chars])
            self._text_chars += len(text)

    def end(self, name: str) -> None:
        """See ``expat``'s ``EndElementHandler``."""
        if self._case is None:
            if name.rpartition(":")[2] in _SUITES:
                self._suites.pop()
        else:
            if self._text is not None and self._depth <= self._case_depth + 1:
                self._sole_text = "".join(self._text)
                self._text = None
            if self._depth == self._case_depth:
                self._end_case(*self._case)
        self._depth -= 1

    def _start_case(self, suite: str, name: str) -> None:
        self._cases += 1
        if self._cases > MAX_CASES:
            raise NotJUnit(f"it has more than {MAX_CASES} tests")
        self._case = (suite[:MAX_CHARS], name[:MAX_CHARS])
        self._case_depth = self._depth
        self._is_skipped, self._problem = False, None
        self._sole_text = ""

    def _start_in_case(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "skipped":
            self._is_skipped = True
        elif name in _FAILED and self._problem is None:
            self._problem = (attributes.get("message", ""), attributes.get("type", ""))
            self._text, self._text_chars = [], 0

    def _end_case(self, suite: str, name: str) -> None:
        self._case = None
        if self._problem is None:
            if self._is_skipped:
                self.results.skipped += 1
            else:
                self.results.passed += 1
            return
        self.results.failed += 1
        if len(self.results.failures) == self._max_failures:
            return
        message, kind = self._problem
        text = self._sole_text.strip()
        # jest-junit has the message in the text alone; Maven has sometimes no more than the exception's name.
        message = message.strip() or text.partition("\n")[0] or kind
        self.results.failures.append(FailedTest(self._path, suite, name, message[:MAX_CHARS], text))


def _name(attributes: Mapping[str, str]) -> str:
    return attributes.get("name", "")
