"""What a wheel of this checkout installs."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.service import PROGRAM

ROOT = PROGRAM.parent
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a wheel, unpacked."""
    directory = tmp_path_factory.mktemp("wheel")
    source, installed = directory / "source", directory / "installed"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "reactorcide", source / "reactorcide", ignore=without)
    script = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, directory], cwd=source, check=True, capture_output=True)
    [wheel] = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)  # our own
    return installed
