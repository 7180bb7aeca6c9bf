"""Test results and the summary of a job."""

import uuid

from tests.support.client import Client
from tests.support.runs import over, repository, start
from tests.support.service import Service

SCRIPT = """
cd /job/artifacts
mkdir deep
cat >deep/junit.xml <<END
<testsuites><testsuite name="pytest" tests="3">
<testcase classname="tests.test_price" name="test_sum"/>
<testcase classname="tests.test_price" name="test_discount">
  <failure message="assert 90 == 91">the token was $API_TOKEN</failure></testcase>
<testcase classname="tests.test_price" name="test_later"><skipped message="not yet"/></testcase>
</testsuite></testsuites>
END
echo '<testsuite><testcase name="adds"/></testsuite>' >other.xml
ln other.xml same.xml
echo '<project/>' >pom.xml
printf '# Done\\n\\nwith %s\\n' "$API_TOKEN" >summary.md
"""


def test_test_results_and_a_summary_are_shown_without_secrets(api: Client) -> None:
    job = api.run(SCRIPT, job_env_vars={"API_TOKEN": "tok-5f3a9c"})
    assert job["status"] == "completed", api.log(job)
    tests = api.get(f"jobs/{job['job_id']}/tests")
    files = {item.pop("path"): item for item in tests["files"]}
    # One of two names of the same file is read.
    (other,) = {"other.xml", "same.xml"} & files.keys()
    assert files == {
        "deep/junit.xml": {"passed": 1, "failed": 1, "skipped": 1, "problem": None},
        other: {"passed": 1, "failed": 0, "skipped": 0, "problem": None},
        "pom.xml": {
            "passed": 0,
            "failed": 0,
            "skipped": 0,
            "problem": "it is not JUnit XML: it begins with <project>",
        },
    }
    assert (tests["passed"], tests["failed"], tests["skipped"], tests["truncated"]) == (2, 1, 1, False)
    assert tests["failures"] == [
        {
            "file": "deep/junit.xml",
            "suite": "tests.test_price",
            "name": "test_discount",
            "message": "assert 90 == 91",
            "text": "the token was [REDACTED]",
        }
    ]
    summary = api.request("GET", f"jobs/{job['job_id']}/summary")
    assert summary.status_code == 200
    assert summary.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert "sandbox" in summary.headers["Content-Security-Policy"]
    assert summary.content == b"# Done\n\nwith [REDACTED]\n"


def test_job_without_reports_has_none(api: Client) -> None:
    none = {"passed": 0, "failed": 0, "skipped": 0, "files": [], "failures": [], "truncated": False}
    for script in ("true", "echo x >/job/artifacts/x"):
        job = api.run(script)
        assert api.get(f"jobs/{job['job_id']}/tests") == none
        refused = api.request("GET", f"jobs/{job['job_id']}/summary")
        assert (refused.status_code, refused.json()["message"]) == (
            404,
            "the job has no artifact summary.md",
        )
    job = api.run(SCRIPT, artifacts=["deep/*"])
    assert [item["path"] for item in api.get(f"jobs/{job['job_id']}/tests")["files"]] == ["deep/junit.xml"]


RETRIED = """
name: R
on: push
jobs:
  a:
    checkout: false
    retries: 1
    command: |
      if [ "$REACTORCIDE_ATTEMPT" = 1 ]; then
        echo '<testsuite><testcase name="a"><error/></testcase></testsuite>' >/job/artifacts/a.xml
        exit 1
      fi
"""


def test_results_are_those_of_the_last_attempt(api: Client, service: Service) -> None:
    source = repository(service.source_root / uuid.uuid4().hex, {"workflows/r.yaml": RETRIED})
    run = over(api, start(api, source))
    (node,) = run["nodes"]
    job = api.job({"job_id": node["job_id"]})
    assert (job["status"], job["attempt"]) == ("completed", 2)
    assert api.get(f"jobs/{job['job_id']}/tests")["failed"] == 0
    assert (run["tests"], node["tests"]) == (None, None)
