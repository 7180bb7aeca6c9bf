"""Reports of a job, from files among its artifacts: test results and a summary."""

from collections.abc import Sequence

from reactorcide.lib.records import record

SUMMARY_PATH = "summary.md"
"""The artifact whose text is a job's summary."""


@record
class FailedTest:
    """One test that failed, or could not run; long texts are cut."""

    file: str
    """The artifact that names the test."""
    suite: str
    name: str
    message: str
    text: str


@record
class JUnitFile:
    """One XML file among the artifacts; ``problem`` says why its tests do not count, if they do not."""

    path: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    problem: str | None = None


@record
class TestCounts:
    """How many tests there were."""

    __test__ = False  # pytest would take it for a test

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: "TestCounts") -> "TestCounts":
        """Return the sum of both."""
        return TestCounts(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )


@record
class JobReport:
    """The test results and the summary of one attempt, without the job's secrets."""

    files: Sequence[JUnitFile] = ()
    failures: Sequence[FailedTest] = ()
    truncated: bool = False
    """There are more failed tests than in ``failures``, or more XML files than in ``files``."""
    summary: str | None = None

    @property
    def counts(self) -> TestCounts:
        """How many tests there are in all files together."""
        of_files = (TestCounts(file.passed, file.failed, file.skipped) for file in self.files)
        return sum(of_files, TestCounts())
