"""A client that a public generator makes of the OpenAPI document, used against the service."""

import importlib
import io
import os
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import FINAL
from tests.support.service import Service, clean_environment
from tests.support.tars import member, tar_gz


@pytest.fixture(scope="module")
def package(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The client as a package that can be imported; the generator had nothing to remark."""
    home = tmp_path_factory.mktemp("generated")
    package = home / "api_client"
    # An image is a text that the generator does not know by itself.
    config = home / "config.yaml"
    config.write_text("content_type_overrides: {image/svg+xml: text/html}\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"),
            *("--config", str(config)),
            *("--url", f"{service.base_url}/api/v1/openapi.json", "--output-path", package.name),
        ],
        # It formats what it makes with ruff.
        env=clean_environment(home, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"),
        cwd=home,
        capture_output=True,
        text=True,
    )
    output = done.stdout + done.stderr
    assert (done.returncode, output.split()) == (0, ["Generating", "api_client"]), output
    sys.path.insert(0, str(home))
    yield package
    sys.path.remove(str(home))


def operation(name: str) -> Any:
    """Return the module of an operation of the client."""
    return importlib.import_module(f"api_client.api.{name}")


def test_generated_client_has_every_operation(package: Path, service: Service) -> None:
    document = service.admin.get("openapi.json")
    named = {
        f"{item['tags'][0]}/{item['operationId']}"
        for path in document["paths"].values()
        for item in path.values()
    }
    assert named == {
        f"{module.parent.name}/{module.stem}"
        for module in package.glob("api/*/*.py")
        if module.stem != "__init__"
    }
    for name in named:
        assert operation(name.replace("/", ".")).sync_detailed


def test_generated_client_uploads_submits_waits_and_reads_artifacts(package: Path, service: Service) -> None:
    generated, models = importlib.import_module("api_client"), importlib.import_module("api_client.models")
    types = importlib.import_module("api_client.types")
    content = f"hello {uuid.uuid4()}\n"
    with generated.AuthenticatedClient(
        base_url=service.base_url, token=service.admin.token, raise_on_unexpected_status=True
    ) as client:
        packed = types.File(payload=io.BytesIO(tar_gz(member("greeting", content.encode()))))
        source = operation("sources.upload_source").sync(client=client, body=packed)
        body = models.CopyJobRequest(
            name="generated",
            job_command="cat greeting; mkdir -p /job/artifacts/a; cp greeting /job/artifacts/a/b.txt",
            source_type="copy",
            source_id=source.source_id,
        )
        job = operation("jobs.submit_job").sync(client=client, body=body, idempotency_key=str(uuid.uuid4()))
        job_id = job.job_id
        while job.status not in FINAL:
            job = operation("jobs.show_job").sync(job_id, client=client, wait=30)
        assert (job.status, job.exit_code, job.source_type) == ("completed", 0, "copy")
        assert job.created_at < job.completed_at
        assert operation("jobs.job_logs").sync(job_id, client=client) == content
        listing = operation("jobs.list_artifacts").sync(job_id, client=client)
        assert [(item.path, item.size) for item in listing.artifacts] == [("a/b.txt", len(content))]
        artifact = operation("jobs.get_artifact").sync(job_id, "a/b.txt", client=client)
        assert artifact.payload.read() == content.encode()
        together = operation("jobs.get_artifacts").sync(job_id, client=client)
        with tarfile.open(fileobj=together.payload) as tar:
            assert tar.getnames() == ["a/b.txt"]
        for media_type in ("application/octet-stream", "application/gzip"):
            answer = service.admin.request(
                "GET", f"jobs/{job_id}/artifacts.tar.gz", headers={"Accept": media_type}
            )
            assert answer.headers["Content-Type"] == media_type
        listed = operation("jobs.list_jobs").sync(client=client, limit=1, status=[models.JobStatus.COMPLETED])
        assert (listed.jobs[0].job_id, listed.total >= 1) == (job_id, True)
        assert operation("jobs.delete_job").sync_detailed(job_id, client=client).status_code == 204
        missing = operation("jobs.show_job").sync(job_id, client=client)
        assert (type(missing), missing.error) == (models.ErrorResponse, "not_found")


def test_git_job_is_a_separate_type(package: Path, service: Service) -> None:
    generated, models = importlib.import_module("api_client"), importlib.import_module("api_client.models")
    with pytest.raises(TypeError, match="git_url"):
        models.GitJobRequest(name="n", job_command="true", source_type="git")
    body = models.GitJobRequest(name="n", job_command="true", source_type="git", git_url="file:///nowhere")
    with generated.AuthenticatedClient(base_url=service.base_url, token=service.admin.token) as client:
        refused = operation("jobs.submit_job").sync(client=client, body=body)
    assert [item.field for item in refused.details] == ["git_url"]
