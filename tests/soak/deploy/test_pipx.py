"""The wheel, installed by pipx: with nothing but what it needs, and with its extra."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.conftest import ended_cleanly
from tests.soak.deploy.conftest import ROOT, run
from tests.support.image import Images
from tests.support.service import Service


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    # From a copy: a build leaves its files in the checkout.
    run("sh", "-c", f"git ls-files -z | xargs -0 cp --parents -t {directory}", cwd=ROOT)
    run(ROOT / ".venv/bin/python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", directory, directory)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(params=["", "[scale]"], ids=["plain", "scale"])
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path: Path) -> Path:
    """The program that pipx has installed."""
    environment = os.environ | {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    run("pipx", "install", "--python", "/usr/bin/python3", f"{wheel}{request.param}", env=environment)
    return tmp_path / "bin" / "reactorcide"


@pytest.fixture
def service(installed: Path, tmp_path: Path, images: Images, engine: docker.APIClient) -> Iterator[Service]:
    """A service of that program."""
    service = Service(tmp_path / "service", images.default, concurrency=1, cancel_grace=1)
    service.program = [str(installed)]
    yield from ended_cleanly(service.start(), engine)


def test_installed_program_runs_a_job(
    service: Service, installed: Path, request: pytest.FixtureRequest
) -> None:
    job = service.admin.run("echo hello")
    assert (job["status"], service.admin.log(job)) == ("completed", b"hello\n")
    python = installed.resolve().parent / "python"
    extra = subprocess.run([python, "-c", "import boto3, cbor2"], capture_output=True, check=False)
    assert extra.returncode == (0 if "scale" in request.node.name else 1)
