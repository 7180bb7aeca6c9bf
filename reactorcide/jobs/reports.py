"""Reports of jobs, from files among their artifacts: one object per attempt."""

import json
from dataclasses import asdict

from reactorcide.domain.errors import ObjectNotFound
from reactorcide.domain.jobs import Job, attempt_prefix
from reactorcide.domain.reports import FailedTest, JobReport, JUnitFile, TestCounts
from reactorcide.jobs import StoredJobs


def save(context: StoredJobs, job: Job, report: JobReport) -> None:
    """Save the report of a job's current attempt; replaces an earlier one."""
    context.objects.put(_key(job), [json.dumps(asdict(report)).encode()])
    if report.counts != TestCounts():
        context.store.jobs.set_tests(job.job_id, job.attempt, report.counts)


def load(context: StoredJobs, job: Job) -> JobReport:
    """Return the report of the job's last attempt; empty if it has not ended or has none."""
    if job.artifacts_object_key is None:
        return JobReport()
    try:
        saved = json.loads(b"".join(context.objects.read(_key(job))))
    except ObjectNotFound:
        return JobReport()
    return JobReport(
        files=[JUnitFile(**item) for item in saved["files"]],
        failures=[FailedTest(**item) for item in saved["failures"]],
        truncated=saved["truncated"],
        summary=saved["summary"],
    )


def _key(job: Job) -> str:
    return attempt_prefix(job.job_id, job.attempt) + "report.json"
