"""The example clients and the sample project, run as a reader would, against a real service."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.conftest import ended_cleanly
from tests.support.image import Images
from tests.support.service import Service

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAMPLE = EXAMPLES / "sample-project"


@pytest.fixture(scope="module")
def examples_service(
    tmp_path_factory: pytest.TempPathFactory, engine: docker.APIClient, images: Images
) -> Iterator[Service]:
    """A service that may copy the examples."""
    tour = Service(tmp_path_factory.mktemp("examples"), images.default, source_root=EXAMPLES, cancel_grace=1)
    yield from ended_cleanly(tour.start(), engine)


@pytest.fixture(scope="module", params=["python", "go"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """How to start either client."""
    if request.param == "python":
        return [sys.executable, str(EXAMPLES / "api_client.py")]
    go = shutil.which("go")
    if go is None:
        pytest.skip("no go here to build the Go example with")
    binary = tmp_path_factory.mktemp("go") / "api_client"
    subprocess.run([go, "build", "-o", str(binary), str(EXAMPLES / "api_client.go")], check=True, timeout=280)
    return [str(binary)]


def run(program: list[str], url: str, token: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "REACTORCIDE_API_URL": url}
    if token is not None:
        environment["REACTORCIDE_API_TOKEN"] = token
    return subprocess.run(
        [*program, *arguments], env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def test_example_client_runs_the_whole_tour(program: list[str], examples_service: Service) -> None:
    service = examples_service
    result = run(program, service.base_url, service.admin.token, "--source", "sample-project")
    assert result.returncode == 0, result.stdout + result.stderr
    output = result.stdout
    for expected in (
        "Service: OK",
        "token recognised",
        "completed, exit code 0",
        "report.txt",
        "tests.tap",
        "Asked to stop: tidying up",
        "cancelled",
        "Deleted",
    ):
        assert expected in output, output
    assert service.admin.get("jobs")["total"] == 0


def test_example_runs_a_job_from_git(program: list[str], new_repository: str, git_service: Service) -> None:
    result = run(program, git_service.base_url, git_service.admin.token, "--git-url", new_repository)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "example-git" in result.stdout


@pytest.fixture(scope="module")
def git_service(
    tmp_path_factory: pytest.TempPathFactory, engine: docker.APIClient, images: Images
) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("git-examples"), images.default, cancel_grace=1)
    yield from ended_cleanly(service.start(), engine)


@pytest.fixture
def new_repository(git_service: Service) -> str:
    """A repository below the service's source root, with the sample project in it."""
    repository = git_service.source_root / "project"
    if not repository.exists():
        shutil.copytree(SAMPLE, repository)
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        for arguments in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first"]):
            subprocess.run(["git", *arguments], cwd=repository, check=True)
    return str(repository)


def test_example_reports_a_failed_job(program: list[str], examples_service: Service) -> None:
    result = run(
        program,
        examples_service.base_url,
        examples_service.admin.token,
        "--source",
        "sample-project",
        "--command",
        "BREAK=1 sh ci.sh",
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "exit code 3" in result.stdout


def test_example_reports_a_timeout(program: list[str], examples_service: Service) -> None:
    result = run(
        program,
        examples_service.base_url,
        examples_service.admin.token,
        "--command",
        "sleep 60",
        "--timeout",
        "1",
    )
    assert result.returncode == 6, result.stdout + result.stderr
    assert result.stderr.count("\n") == 1


def test_each_failure_has_a_message_and_an_exit_code(program: list[str], examples_service: Service) -> None:
    url, token = examples_service.base_url, examples_service.admin.token
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for address, value, arguments, code in (
        (url, None, [], 2),
        ("", token, [], 2),
        (url, token, ["--timeout", "never"], 2),
        (nobody, token, [], 3),
        (url, "rct_wrong-token-value", [], 4),
        (url, token, ["--source", "/etc"], 5),
    ):
        result = run(program, address, value, *arguments)
        assert result.returncode == code, (arguments, result.stdout, result.stderr)
        assert result.stderr.strip()
        assert "Traceback" not in result.stderr
        assert "panic" not in result.stderr


def test_the_sample_project_passes_its_own_tests(tmp_path: Path) -> None:
    passed = subprocess.run(
        ["sh", "ci.sh"],
        cwd=SAMPLE,
        env={"PATH": os.environ["PATH"], "REACTORCIDE_ARTIFACTS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert passed.stdout
    assert {path.name for path in tmp_path.iterdir()} >= {"tests.tap", "report.txt"}
    broken = subprocess.run(
        ["sh", "ci.sh"],
        cwd=SAMPLE,
        env={"PATH": os.environ["PATH"], "REACTORCIDE_ARTIFACTS_DIR": str(tmp_path), "BREAK": "1"},
        capture_output=True,
        check=False,
    )
    assert broken.returncode == 3
