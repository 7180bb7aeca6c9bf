"""Reading test results and the summary among a job's artifacts."""

from collections.abc import Collection
from time import monotonic

from reactorcide.domain.reports import SUMMARY_PATH, FailedTest, JobReport, JUnitFile
from reactorcide.lib.sizes import format_size
from reactorcide.logs.masking import Masker
from reactorcide.worker.attempt.junit import NotJUnit, read_junit

MAX_XML_BYTES = 16 << 20
"""Maximum size of one file."""
MAX_SUMMARY_BYTES = 1 << 20
MAX_FAILURES = 200
MAX_FILES = 1000
MAX_READ_S = 10.0
"""Time limit for all XML files of one attempt."""
MAX_NAME_BYTES = 500
MAX_MESSAGE_BYTES = 1000
MAX_TEXT_BYTES = 3000
"""Less than is read, so that a character or secret that was cut there is not shown."""


class Reports:
    """The report of one attempt, built while its artifacts are stored. Not thread-safe."""

    def __init__(self, secrets: Collection[str]) -> None:
        self._masker = Masker(secrets)
        self._files: list[JUnitFile] = []
        self._failures: list[FailedTest] = []
        self._truncated = False
        self._summary: str | None = None
        self._remaining_s = MAX_READ_S

    def max_read_bytes(self, path: str, size_bytes: int) -> int:
        """Return how many bytes of a file to pass to ``add``, from its beginning; 0 means none."""
        if path == SUMMARY_PATH:
            # One more shows that the text is cut.
            return MAX_SUMMARY_BYTES + 1
        if not path.lower().endswith(".xml"):
            return 0
        if len(self._files) == MAX_FILES:
            self._truncated = True
            return 0
        if size_bytes > MAX_XML_BYTES:
            problem = f"it is larger than {format_size(MAX_XML_BYTES)}"
            self._files.append(JUnitFile(path, problem=problem))
            return 0
        return MAX_XML_BYTES

    def add(self, path: str, data: bytes) -> None:
        """Parse a file; ``data`` has the bytes that ``max_read_bytes`` asked for."""
        if path == SUMMARY_PATH:
            self._summary = self._masked(data, MAX_SUMMARY_BYTES)
        else:
            self._files.append(self._read(path, data))

    def report(self) -> JobReport | None:
        """Return the report; ``None`` if there is neither a summary nor an XML file."""
        if not self._files and self._summary is None:
            return None
        return JobReport(self._files, self._failures, self._truncated, self._summary)

    def _read(self, path: str, data: bytes) -> JUnitFile:
        began_at = monotonic()
        max_failures = MAX_FAILURES - len(self._failures)
        try:
            results = read_junit(path, data, deadline=began_at + self._remaining_s, max_failures=max_failures)
        except NotJUnit as exc:
            return JUnitFile(path, problem=self._masked(str(exc).encode(), MAX_MESSAGE_BYTES))
        finally:
            self._remaining_s -= monotonic() - began_at
        self._truncated |= results.failed > len(results.failures)
        self._failures += (
            FailedTest(
                path,
                self._masked(failure.suite.encode(), MAX_NAME_BYTES),
                self._masked(failure.name.encode(), MAX_NAME_BYTES),
                self._masked(failure.message.encode(), MAX_MESSAGE_BYTES),
                self._masked(failure.text.encode(), MAX_TEXT_BYTES),
            )
            for failure in results.failures
        )
        return JUnitFile(path, results.passed, results.failed, results.skipped)

    def _masked(self, data: bytes, max_bytes: int) -> str:
        """Return about ``max_bytes`` of a text, without secrets."""
        pieces = self._masker.feed(data[:max_bytes])
        rest = self._masker.end()
        if len(data) <= max_bytes:
            pieces += rest
        text = b"".join(piece for _, piece in pieces).decode(errors="replace")
        # The beginning of a secret that was cut is in the rest.
        return text if len(data) <= max_bytes else text + "…"
