"""Names of files are UTF-8 whatever the locale that the service and the command line run in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NewService
from tests.sources.support import Repository
from tests.support.service import PROGRAM, Service, clean_environment

NAME = "grüße €"
LATIN = b"caf\xe9"
LIST = "for name in *; do printf '%s' \"$name\" | od -An -tx1 | tr -d ' \\n'; echo; done"


@pytest.fixture(params=["C", "de_DE.ISO-8859-1"])
def locale(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Variables that take Python out of UTF-8."""
    variables = {"LC_ALL": request.param, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    if request.param != "C":
        path = tmp_path / request.param
        define = ("localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(path))
        if subprocess.run(define, capture_output=True, check=False).returncode > 1:
            pytest.skip("this host has nothing to make a locale of")
        variables["LOCPATH"] = str(tmp_path)
    encoding = subprocess.run(
        [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"],
        env=clean_environment(tmp_path, **variables),
        capture_output=True,
        check=True,
    )
    assert encoding.stdout.strip() in (b"ascii", b"iso8859-1")
    return variables


@pytest.fixture
def service(new_service: NewService, locale: dict[str, str]) -> Service:
    return new_service(environment=locale)


def submit(service: Service, locale: dict[str, str], *arguments: bytes) -> bytes:
    """Run a job from the command line, in the same locale, and return its log."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "submit", "names", "--follow", *arguments, "--", LIST],
        env=clean_environment(
            service.home,
            REACTORCIDE_API_URL=service.base_url,
            REACTORCIDE_API_TOKEN=service.admin.token or "",
            **locale,
        ),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(*names: bytes) -> bytes:
    return b"".join(name.hex().encode() + b"\n" for name in sorted(names))


def test_artifacts_are_stored_and_downloaded_under_their_names(service: Service) -> None:
    api = service.admin
    latin = LATIN.decode("latin-1").encode("unicode_escape").decode()
    job = api.run(
        f"cd /job/artifacts; mkdir -p '{NAME}'; echo it > '{NAME}/{NAME}'; echo x > \"$(printf '{latin}')\""
    )
    assert job["status"] == "completed", job
    assert [item["path"] for item in api.get(f"jobs/{job['job_id']}/artifacts")["artifacts"]] == [
        f"{NAME}/{NAME}"
    ]
    assert "is not stored: its name is not UTF-8" in api.log(job).decode()
    assert api.request("GET", f"jobs/{job['job_id']}/artifacts/{NAME}/{NAME}").content == b"it\n"
    stored = service.object_path(job["artifacts_object_key"])
    assert os.listdir(os.fsencode(stored)) == [NAME.encode()]
    # On disk as in any other locale: one artifact, two ways out.
    again = api.run(f"cat '{NAME}/{NAME}'", source_job_id=job["job_id"])
    assert api.log(again).endswith(b"it\n")


def test_sources_have_their_file_names_on_every_way_in(service: Service, locale: dict[str, str]) -> None:
    project = Repository(service.source_root / NAME)
    for name in (NAME.encode(), LATIN):
        Path(os.fsdecode(os.fsencode(project.path) + b"/" + name)).write_text("x")
    project.commit("file", "x")
    expected = lines(NAME.encode(), LATIN, b"file")
    directory = os.fsencode(project.path)
    assert submit(service, locale, b"--source", directory).endswith(expected)
    assert submit(service, locale, b"--source", directory, b"--upload").endswith(expected)
    assert submit(service, locale, b"--git", directory).endswith(expected)
    # A directory with a name that is no UTF-8 cannot be sent to the service, so it is uploaded.
    other = os.fsencode(service.source_root) + b"/" + LATIN
    os.rename(directory, other)
    assert submit(service, locale, b"--source", other).endswith(expected)
