"""An engine that is reached over TCP and TLS."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import NewService
from tests.support.certificate import make_certificate
from tests.support.tls_engine import tls_engine
from tests.support.waiting import wait_until

LINES = 200_000


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables that name the engine."""
    (tmp_path / "engine").mkdir()
    with tls_engine(tmp_path / "engine") as variables:
        yield variables


def test_job_runs_on_an_engine_over_tls(
    remote: dict[str, str], new_service: NewService, tmp_path: Path
) -> None:
    # What the environment trusts elsewhere is no matter between the service and its engine.
    bundle = make_certificate(tmp_path, "elsewhere").cert
    service = new_service(remote | {"REQUESTS_CA_BUNDLE": str(bundle)})
    (service.source_root / "project").mkdir()
    (service.source_root / "project" / "file").write_text("its source\n")
    api = service.admin
    wait_until(
        lambda: api.request("GET", "ready").json()["checks"]["docker"] == "ok", 20, "the engine answers"
    )
    # Slow and fast, so that the reader meets both nothing and more than it takes at a time.
    command = f"cat file; sleep 0.3; seq {LINES}; sleep 0.3; echo end; cp file $REACTORCIDE_ARTIFACTS_DIR"
    job = api.wait(api.submit(command, source_path="project"))
    assert (job["status"], job["error"]) == ("completed", None)
    assert api.log(job) == b"its source\n" + b"".join(b"%d\n" % i for i in range(1, LINES + 1)) + b"end\n"
    assert api.request("GET", f"jobs/{job['job_id']}/artifacts/file").text == "its source\n"
    cancelled = api.cancel(api.wait(api.submit("sleep 60"), "running"))
    assert cancelled["status"] == "cancelled"
