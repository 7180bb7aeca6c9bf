"""``reactorcide demo``: the complete demo, and its messages when a step fails."""

import contextlib
import re
import signal
from pathlib import Path

import docker
import pytest

from tests.cli.conftest import Program
from tests.support.waiting import wait_until


@pytest.fixture
def program(lone: Program, tmp_path: Path) -> Program:
    """The program, with a directory for temporary things that has to be empty in the end."""
    (tmp_path / "temporary").mkdir()
    return lone.with_variables(TMPDIR=str(tmp_path / "temporary"))


def temporary_files(program: Program) -> list[str]:
    """Return the names in the program's temporary directory."""
    return [path.name for path in Path(program.environment["TMPDIR"]).iterdir()]


def running_in(directory: Path) -> list[bytes]:
    """Return the command lines of the processes that name the directory in an argument."""
    command_lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # It may have ended by now.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            command_lines.append(path.read_bytes())
    return [line for line in command_lines if bytes(directory) in line]


def project(directory: Path, script: str) -> Path:
    """Make a project of one script."""
    directory.mkdir()
    (directory / "ci.sh").write_text(script)
    return directory


def test_demo_shows_everything_and_leaves_nothing_behind(program: Program, image: str) -> None:
    # Settings that are meant for another service play no part.
    result = program.with_variables(REACTORCIDE_CONCURRENCY="0").fine("demo", "--image", image)
    text = result.text
    steps = ["answers at http", "ok 1 - ", "words 31", "report.txt:", "not ok 11", "exit code 3"]
    steps += ["test completed", "publish completed", "published:", "words ", "stopped"]
    at = 0
    for step in steps:
        at = text.index(step, at)
    assert "status completed, exit code 0" in text
    assert "status failed, exit code 3" in text
    assert "Everything worked" in text
    assert temporary_files(program) == []


def test_bundled_project_behaves_like_the_sample(program: Program, image: str, tmp_path: Path) -> None:
    from reactorcide.cli.demo import _SMALL_PROJECT

    directory = project(tmp_path / "small", "")
    for name, content in _SMALL_PROJECT.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    assert "published:\n  2 + 2 = 4" in program.fine("demo", "--image", image, "--source", directory).text


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("exit 1", "should have completed"),
        ("echo hello", "should have left report.txt and tests.tap"),
        ("echo 1 | tee $REACTORCIDE_ARTIFACTS_DIR/tests.tap >$REACTORCIDE_ARTIFACTS_DIR/report.txt", "empty"),
        (
            "sleep 1; echo 1; cd $REACTORCIDE_ARTIFACTS_DIR; echo 1 >tests.tap; echo 1 >report.txt",
            "should have failed with exit code 3",
        ),
    ],
)
def test_project_with_another_result_fails_the_demo(
    program: Program, image: str, tmp_path: Path, script: str, problem: str
) -> None:
    result = program("demo", "--image", image, "--source", project(tmp_path / "project", script))
    assert result.code == 1
    assert problem in result.errors
    assert "The service's log ends with" in result.errors
    assert "Everything worked" not in result.text
    assert temporary_files(program) == []


def test_missing_image_fails_the_demo(program: Program) -> None:
    result = program("demo", "--image", "localhost:9/nothing:here")
    assert result.code == 1
    assert "localhost:9/nothing:here" in result.errors
    assert temporary_files(program) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_demo_leaves_nothing_behind(
    program: Program, image: str, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "output"
    directory = project(tmp_path / "project", "echo begun; sleep 600")
    with (
        output.open("wb") as file,
        program.start("demo", "--image", image, "--source", directory, stdout=file, stderr=file) as process,
    ):
        wait_until(lambda: b"\nbegun\n" in output.read_bytes(), 20, "its job has begun")
        match = re.search(r"job (\S{36}) is ", output.read_text())
        assert match is not None
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert "Traceback" not in output.read_text()
    assert temporary_files(program) == []
    client = docker.APIClient(version="auto")
    try:
        assert client.containers(all=True, filters={"name": match[1]}) == []
    finally:
        client.close()
    assert running_in(tmp_path) == []
