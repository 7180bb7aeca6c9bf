"""Reports from a job's files: limits, and no secrets."""

import pytest

from reactorcide.domain.reports import JUnitFile
from reactorcide.worker.attempt import reports
from reactorcide.worker.attempt.reports import (
    MAX_FAILURES,
    MAX_FILES,
    MAX_MESSAGE_BYTES,
    MAX_SUMMARY_BYTES,
    MAX_XML_BYTES,
    Reports,
)

SECRET = "correct horse battery staple"
PASSED = b"<testsuite><testcase/></testsuite>"
FAILED = b'<testsuite name="s"><testcase name="c"><failure message="m"/></testcase></testsuite>'


def add(read: Reports, path: str, data: bytes) -> None:
    """Pass a file, as the collection does."""
    max_read_bytes = read.max_read_bytes(path, len(data))
    if max_read_bytes:
        read.add(path, data[:max_read_bytes])


def test_only_xml_files_and_the_summary_at_the_top_are_read() -> None:
    read = Reports(())
    for path in ("a.txt", "deep/summary.md", "xml", "a.xml.gz"):
        add(read, path, PASSED)
    assert read.report() is None
    for path in ("a.xml", "deep/B.XML"):
        add(read, path, PASSED)
    add(read, "pom.xml", b"<project/>")
    add(read, "summary.md", "# é\n".encode() + b"\xff")
    report = read.report()
    assert report is not None
    assert report.files == [
        JUnitFile("a.xml", passed=1),
        JUnitFile("deep/B.XML", passed=1),
        JUnitFile("pom.xml", problem="it is not JUnit XML: it begins with <project>"),
    ]
    assert report.summary == "# é\n�"
    assert not report.truncated


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Reports(())
    assert read.max_read_bytes("huge.xml", MAX_XML_BYTES + 1) == 0
    add(read, "summary.md", b"x" * (2 * MAX_SUMMARY_BYTES))
    for number in range(MAX_FILES):
        add(read, f"{number}.xml", FAILED)
    report = read.report()
    assert report is not None
    assert report.files[0] == JUnitFile("huge.xml", problem="it is larger than 16 MiB")
    assert len(report.files) == MAX_FILES
    assert report.files[-1].failed == 1
    assert len(report.failures) == MAX_FAILURES
    assert report.truncated
    assert report.summary == "x" * MAX_SUMMARY_BYTES + "…"
    monkeypatch.setattr(reports, "MAX_READ_S", 0.0)
    late = Reports(())
    add(late, "a.xml", PASSED)
    report = late.report()
    assert report is not None
    assert report.files == [JUnitFile("a.xml", problem="the time for reading test results was over")]


def test_secrets_are_masked_at_the_end_of_cut_text() -> None:
    message = "x" * (MAX_MESSAGE_BYTES - 10) + SECRET + "y" * 100
    data = (
        f'<testsuite name="{SECRET}"><testcase name="a {SECRET}"><failure message="{message}">'
        f"{SECRET}!</failure></testcase></testsuite>"
    )
    read = Reports([SECRET])
    add(read, "a.xml", data.encode())
    add(read, "b.xml", f"<{SECRET.replace(' ', '-')}/>".encode())
    add(read, "summary.md", b"x" * (MAX_SUMMARY_BYTES - 10) + SECRET.encode())
    report = read.report()
    assert report is not None
    (failure,) = report.failures
    assert (failure.suite, failure.name, failure.text) == ("[REDACTED]", "a [REDACTED]", "[REDACTED]!")
    assert failure.message == "x" * (MAX_MESSAGE_BYTES - 10) + "…"
    assert report.summary == "x" * (MAX_SUMMARY_BYTES - 10) + "…"
