"""``reactorcide run`` and ``reactorcide runs``: a workflow here, and on a service."""

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.cli.conftest import Program
from tests.sources.support import Repository, running
from tests.support.runs import repository
from tests.support.waiting import wait_until

TEXT = """
name: CI
on: [push]
vars: {word: hello}
jobs:
  build: {command: cat given; echo "$WORD", environment: {WORD: "${vars.word}"}}
  test: {needs: [build], matrix: {n: [1, 2]}, command: echo "n is $N", environment: {N: "${matrix.n}"}}
  ask:
    services: {web: {image: IMAGE, command: sh -c 'mkdir /w; echo served >/w/x; exec httpd -f -p 80 -h /w',
                     ready: "wget -q -O - http://localhost/x"}}
    command: wget -q -O - http://web/x
  docs: {paths: {include: ["docs/**"]}, command: exit 3}
  whoami:
    run_local: {user: runner}
    command: touch here /job/artifacts/x; echo "$(id -u):$(id -g)"
"""
FAILING = """
name: F
on: push
jobs:
  a:
    command: |
      cat >/job/artifacts/junit.xml <<END
      <testsuite>
      <testcase name="adds"/><testcase name="sums"><failure message="1 is no 2"/></testcase>
      </testsuite>
      END
      echo no
      exit 3
  b: {needs: [a], command: x}
"""


def work_tree(tmp_path: Path, text: str) -> Path:
    repo = repository(tmp_path / "tree", {"workflows/ci.yaml": text})
    (repo.path / ".gitignore").write_text("ignored\n")
    (repo.path / "given").write_text("not committed\n")
    (repo.path / "ignored").write_text("x")
    return repo.path


@pytest.fixture
def program(lone: Program, tmp_path: Path) -> Program:
    """The program, with a directory for temporary things that has to be empty in the end."""
    (tmp_path / "temporary").mkdir()
    return lone.with_variables(TMPDIR=str(tmp_path / "temporary"))


def test_a_work_tree_runs_without_a_server(program: Program, tmp_path: Path, image: str) -> None:
    tree = work_tree(tmp_path, TEXT.replace("IMAGE", image))
    options = ("--event", "push", "--var", "word=bye", "--changed-file", "src/a")
    result = program("run", "--image", image, *options, cwd=tree)
    assert result.code == 0, result
    lines = result.text.splitlines()
    for line in (
        "build | not committed",
        "build | bye",
        "test (1) | n is 1",
        "test (2) | n is 2",
        "ask | served",
        "whoami | 1001:1001",
    ):
        assert line in lines
    assert re.search(r"^test \(2\) +completed", result.text, re.MULTILINE)
    assert re.search(
        r"^docs +skipped +none of the 1 changed files is one that its paths name$", result.text, re.MULTILINE
    )
    assert lines[-1] == "CI completed"
    assert "build running" in result.errors or "build completed" in result.errors
    assert list((tmp_path / "temporary").iterdir()) == []


@dataclass
class LocalRun:
    """A run of ``reactorcide run`` whose job has started and would take ten minutes."""

    process: subprocess.Popen[bytes]
    output: Path
    temporary: Path
    log: Path
    job_id: str


@contextmanager
def local_run(program: Program, tmp_path: Path, image: str) -> Iterator[LocalRun]:
    """Start a run; its job takes the whole grace period. At the end no container of it may remain."""
    text = "name: L\non: push\njobs: {a: {command: trap '' TERM; echo begun; sleep 600}}\n"
    tree = work_tree(tmp_path, text)
    output, temporary = tmp_path / "output", tmp_path / "temporary"
    with (
        output.open("wb") as file,
        program.start("run", "--image", image, cwd=tree, stdout=file, stderr=file) as process,
    ):
        wait_until(lambda: b"a | begun\n" in output.read_bytes(), 30, "its job has begun")
        (log,) = temporary.glob("*/service.log")
        match = re.search(r"job_id=(\S{36})", log.read_text())
        assert match is not None
        yield LocalRun(process, output, temporary, log, match[1])
    with closing(docker.APIClient(version="auto")) as client:
        assert client.containers(all=True, filters={"name": match[1]}) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_repeated_signals_leave_nothing_behind(
    program: Program, tmp_path: Path, image: str, number: signal.Signals
) -> None:
    with local_run(program, tmp_path, image) as run:
        run.process.send_signal(number)
        wait_until(lambda: "/cancel 200" in run.log.read_text(), 10, "the job is cancelled")
        run.process.send_signal(number)
        assert run.process.wait(40) == 128 + number
        assert "Traceback" not in run.output.read_text()
        assert list(run.temporary.iterdir()) == []


def test_killed_run_leaves_nothing_behind(program: Program, tmp_path: Path, image: str) -> None:
    with local_run(program, tmp_path, image) as run:
        assert len(running(str(run.temporary))) >= 2
        run.process.kill()
        run.process.wait()
        wait_until(lambda: list(run.temporary.iterdir()) == [], 60, "its directory is removed")
        assert running(str(run.temporary)) == []


def test_workflow_file_can_be_a_link_within_the_directory(
    reactorcide: Program, program: Program, tmp_path: Path, image: str
) -> None:
    repo = repository(tmp_path / "linked", {"shared": FAILING.replace("exit 3", "true")})
    (repo.path / ".reactorcide/workflows").mkdir()
    link = repo.path / ".reactorcide/workflows/ci.yaml"
    link.symlink_to("../shared")
    repo.commit("file", "x")
    started = ("runs", "start", "--source", repo.path, "--json")
    assert reactorcide.fine(*started).json["workflow_name"] == "F"
    assert "a | no" in program("run", "--image", image, "--job", "a", cwd=repo.path).text.splitlines()
    link.unlink()
    link.symlink_to("../../../outside")
    sentence = "ci.yaml is a link, but not to a regular file of the repository"
    assert sentence in reactorcide.refused(*started)
    assert sentence in program("run", "--image", image, cwd=repo.path).errors


def test_log_of_a_node_without_a_job_is_a_clear_error(reactorcide: Program, tmp_path: Path) -> None:
    tree = repository(tmp_path / "failing", {"workflows/ci.yaml": FAILING}).path
    run = reactorcide("runs", "start", "--source", tree, "--follow", "--json").json
    for options in ((), ("--follow",)):
        result = reactorcide("runs", "logs", run["run_id"], "b", *options)
        assert (result.code, result.text) == (0, "")
        assert result.errors == "b has no job; it is skipped: a did not succeed\n"
    assert "no\n" in reactorcide.fine("runs", "logs", run["run_id"]).text


def test_failed_run_exits_with_1_and_wrong_file_with_2(program: Program, tmp_path: Path, image: str) -> None:
    tree = work_tree(tmp_path, FAILING)
    failed = program("run", "--image", image, cwd=tree)
    assert failed.code == 1, failed
    assert "a | no" in failed.text.splitlines()
    assert "a failed, 1 passed, 1 failed: exit code 3" in failed.errors.splitlines()
    assert re.search(r"^b +skipped +a did not succeed$", failed.text, re.MULTILINE)
    assert failed.text.endswith("\n  a: sums: 1 is no 2\nF failed, 1 passed, 1 failed")
    file = tree / ".reactorcide/workflows/ci.yaml"
    for text, problem in (
        ("name: CI\non: push\njobs: {a: {comand: x}}\n", "ci.yaml:3:12: 'comand' is not a key of a job"),
        (
            "name: CI\non: push\njobs: {a: {command: x, disable_run_local: true}}\n",
            "disable_run_local prevents a from",
        ),
    ):
        file.write_text(text)
        wrong = program("run", cwd=tree)
        assert (wrong.code, wrong.text) == (2, "")
        assert problem in wrong.errors
    file.write_text("name: CI\non: push\njobs: {a: {command: x, capabilities: [builder]}}\n")
    unsupported = program("run", "--image", image, cwd=tree)
    assert unsupported.code == 1
    assert "the capability builder cannot be used: the operator has named no BuildKit" in unsupported.text
    assert program("run", "nope", cwd=tree).code == 2
    assert program("run", cwd=tmp_path).code == 2
    assert list((tmp_path / "temporary").iterdir()) == []


CACHED = """
name: C
on: push
jobs:
  a: {cache: [{key: [k], paths: [kept]}], command: cat kept || echo no > kept}
"""


def test_run_without_an_engine_fails_at_once(program: Program, tmp_path: Path) -> None:
    program = program.with_variables(DOCKER_HOST="unix:///nonexistent")
    message = program.refused("run", cwd=work_tree(tmp_path, FAILING))
    assert message.startswith("reactorcide: no job can run: no Docker Engine answers at /nonexistent")


def test_run_prints_why_nothing_runs(program: Program, tmp_path: Path) -> None:
    text = FAILING.replace("  a:\n", "  a:\n    image: 127.0.0.1:1/none\n")
    result = program("run", cwd=work_tree(tmp_path, text))
    assert result.code == 1
    # A busy machine may have ended the first attempt before it is looked at.
    assert re.search(r"a waits: attempt \d ended \(image 127\.0\.0\.1:1/none is not here", result.errors)
    assert "\na failed: image 127.0.0.1:1/none is not here and could not be pulled: " in result.errors


def test_directory_name_that_is_not_utf8_is_replaced(program: Program, tmp_path: Path, image: str) -> None:
    tree = work_tree(tmp_path, "name: CI\non: push\njobs: {a: {command: x, condition: always}}\n")
    odd = tree.rename(os.fsdecode(os.fsencode(tmp_path) + b"/n\xff"))
    result = program("run", "--image", image, cwd=odd)
    assert (result.code, "a | " in result.text) == (1, True), result


def test_caches_of_an_upload_are_listed_and_deleted(reactorcide: Program, tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree-with-cache", {"workflows/ci.yaml": CACHED}).path
    reactorcide.fine("runs", "start", "--source", tree, "--follow")
    (cache,) = json.loads(reactorcide.fine("caches", "list", "--json").output)["caches"]
    assert (cache["repository"], cache["key"], cache["paths"]) == ("tree-with-cache", "k", ["kept"])
    assert cache["cache_id"] in reactorcide.fine("caches", "list").text
    # Of a directory with another name it is none.
    other = repository(tmp_path / "other", {"workflows/ci.yaml": CACHED}).path
    run = reactorcide("runs", "start", "--source", other, "--follow", "--json").json
    assert "cache k is not there yet" in reactorcide.fine("runs", "logs", run["run_id"]).text
    again = reactorcide("runs", "start", "--source", tree, "--follow", "--json").json
    assert "cache k is restored" in reactorcide.fine("runs", "logs", again["run_id"]).text
    both = [item["cache_id"] for item in reactorcide("caches", "list", "--json").json["caches"]]
    reactorcide.fine("caches", "delete", *both)
    assert reactorcide("caches", "list", "--json").json["caches"] == []
    assert "there is no cache" in reactorcide("caches", "delete", both[0]).errors
    assert reactorcide("caches", "delete", "../x").code == 2


def test_local_run_says_that_caches_are_off(program: Program, tmp_path: Path, image: str) -> None:
    result = program("run", "--image", image, cwd=work_tree(tmp_path, CACHED))
    assert result.code == 0, result
    assert "no cache is restored or saved: they are turned off here" in result.text


def test_runs_on_a_service(reactorcide: Program, tmp_path: Path) -> None:
    repo = repository(tmp_path / "tree", {"workflows/ci.yaml": FAILING})
    started = reactorcide("runs", "start", "ci", "--source", repo.path, "--follow")
    assert started.code == 1
    assert "failed, 1 passed, 1 failed\n  a: sums: 1 is no 2\n" in started.errors
    assert "b skipped: a did not succeed" in started.errors
    listed = json.loads(reactorcide.fine("runs", "list", "--workflow", "ci", "--json").output)["runs"]
    run_id = listed[0]["run_id"]
    assert run_id in reactorcide.fine("runs", "list").text
    output = reactorcide.fine("runs", "show", run_id).text
    assert "  a failed, 1 passed, 1 failed: exit code 3" in output
    assert "  b skipped: a did not succeed" in output
    assert "Status      failed, 1 passed, 1 failed" in output.splitlines()
    assert output.endswith("  a: sums: 1 is no 2")
    run = reactorcide("runs", "show", run_id, "--json").json
    assert run["tests"] == run["nodes"][0]["tests"] == {"passed": 1, "failed": 1, "skipped": 0}
    assert run["nodes"][1]["tests"] is None
    assert reactorcide.fine("runs", "logs", run_id).text.startswith("--- a\nno\n")
    assert reactorcide.fine("runs", "logs", run_id, "a").text.startswith("no\n")
    assert "it has a, b" in reactorcide("runs", "logs", run_id, "c").errors
    repeated = reactorcide("runs", "rerun", run_id, "--failed", "--follow", "--json")
    assert (repeated.code, repeated.json["attempt"]) == (1, 2)
    assert "already failed" in reactorcide("runs", "cancel", run_id).errors
    # The name becomes the run's repository, in JSON, which has no bytes that are not UTF-8.
    wrong = Repository(tmp_path / os.fsdecode(b"wrong\xff"))
    (wrong.path / ".reactorcide/workflows").mkdir(parents=True)
    (wrong.path / ".reactorcide/workflows/ci.yaml").write_text("name: CI\non: push\njobs: {a: {comand: x}}\n")
    result = reactorcide("runs", "start", "--source", wrong.path)
    assert result.code == 1
    assert "did you mean command?" in result.errors


def on_terminal(program: Program, *arguments: object, **options: Any) -> tuple[int, str]:
    """Run a command on a terminal; return its exit code, and what the terminal received."""
    master, slave = pty.openpty()
    shell = program.with_variables(TERM="xterm", COLUMNS="100")
    with shell.start(*arguments, **{"stdout": slave, "stderr": slave} | options) as process:
        os.close(slave)
        text = b""
        # Reading fails once nobody has the other end any more.
        with suppress(OSError):
            while data := os.read(master, 1 << 16):
                text += data
        code = process.wait(60)
    os.close(master)
    return code, text.decode()


def lines_of(text: str) -> list[str]:
    """Return the lines of a terminal's output, without styles; what moves the cursor ends a line."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", re.sub(r"\x1b\[[0-9;]*m", "", text))
    return [line for line in plain.replace("\r", "").splitlines() if line]


def test_terminal_shows_the_run_as_a_tree(reactorcide: Program, tmp_path: Path) -> None:
    tree = repository(tmp_path / "tree", {"workflows/ci.yaml": FAILING}).path
    run_id = reactorcide.fine("runs", "start", "--source", tree).text
    code, text = on_terminal(reactorcide, "runs", "show", run_id, "--follow", stdout=subprocess.DEVNULL)
    assert code == 1
    assert text.count("\x1b[1A") >= 2
    assert lines_of(text)[-4:] == [
        f"run #{reactorcide('runs', 'show', run_id, '--json').json['number']} failed, 1 passed, 1 failed",
        "└── a failed, 1 passed, 1 failed: exit code 3",
        "    └── b skipped: a did not succeed",
        "  a: sums: 1 is no 2",
    ]


def test_run_on_a_terminal_shows_logs_above_the_tree(program: Program, tmp_path: Path, image: str) -> None:
    tree = work_tree(tmp_path, FAILING)
    code, text = on_terminal(program, "run", "--image", image, cwd=tree)
    assert code == 1
    lines = [line.rstrip() for line in lines_of(text)]
    assert lines.count("a | no") == 1
    tree_at = [index for index, line in enumerate(lines) if line.startswith("run #1 failed")][-1]
    assert lines[tree_at + 1 : tree_at + 3] == [
        "└── a failed, 1 passed, 1 failed: exit code 3",
        "    └── b skipped: a did not succeed",
    ]
    assert tree_at > lines.index("a | no")
    assert "a running" not in lines


VALUES = """
name: V
on: [push, schedule]
jobs:
  first: {command: echo first}
  second:
    needs: [first]
    environment: {TOKEN: "${secret:pypi:token}", WORD: "${env:WORD}"}
    command: 'echo "$WORD $MORE $TOKEN"'
  third: {environment: {KEY: "${secret:third:key}"}, command: exit 3}
  other: {on: {events: [schedule]}, environment: {KEY: "${secret:other:key}"}, command: exit 3}
"""


def test_secrets_variables_and_a_single_job_are_options(program: Program, tmp_path: Path, image: str) -> None:
    tree = work_tree(tmp_path, VALUES)
    command = ["run", "--image", image, "--event", "push"]
    missing = program(*command, "--env", "WORD=hello", cwd=tree)
    assert (missing.code, missing.errors) == (
        2,
        ".reactorcide/workflows/ci.yaml: there is no value for pypi:token, third:key; give each as --secret "
        "PATH:KEY=@FILE\n",
    )
    (tmp_path / "token").write_text("open sesame\n")
    command += ["--job", "second", "--secret", f"pypi:token=@{tmp_path}/token"]
    missing = program(*command, cwd=tree)
    assert (missing.code, "there is no value for WORD; give each as --env" in missing.errors) == (2, True)
    shell = program.with_variables(MORE="again", NOT_GIVEN="x")
    result = shell(*command, "--env", "WORD=hello", "--env", "MORE", cwd=tree)
    assert result.code == 0, result
    assert "first | first" in result.text.splitlines()
    assert "second | hello again [REDACTED]" in result.text.splitlines()
    assert re.search(r"^third +skipped +it was not asked for$", result.text, re.MULTILINE)
    unknown = program("run", "--job", "nope", cwd=tree)
    assert (unknown.code, "the workflow has no job 'nope'; it has first, third, other" in unknown.errors) == (
        2,
        True,
    )
    assert program("run", "--secret", "pypi:token=value", cwd=tree).code == 1


@pytest.mark.parametrize(
    "text",
    [
        "name: build\ncommand: echo alone\nenvironment: {A: b}\n",
        "name: build\njob: {command: echo alone, environment: {A: b}}\n",
    ],
    ids=["flat", "nested"],
)
def test_a_single_job_file_runs_alone(program: Program, tmp_path: Path, image: str, text: str) -> None:
    tree = work_tree(tmp_path, FAILING)
    jobs = tree / ".reactorcide/jobs"
    jobs.mkdir()
    (jobs / "build.yaml").write_text(text)
    (jobs / "other.yaml").write_text("name: other\ncommand: exit 3\n")
    result = program("run-local", "--image", image, ".reactorcide/jobs/build.yaml", cwd=tree)
    assert result.code == 0, result
    assert "build | alone" in result.text.splitlines()
    assert "other" not in result.text
