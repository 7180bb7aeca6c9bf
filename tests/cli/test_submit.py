"""``reactorcide submit``: what becomes of its arguments, and following."""

import json
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import SAMPLE, Program, Service
from tests.support.waiting import wait_until


def submitted(reactorcide: Program, *arguments: object, **options: Any) -> dict[str, Any]:
    """Submit a job that never starts, and return it as the API shows it."""
    job: dict[str, Any] = reactorcide.fine("submit", "--json", *arguments, **options).json
    reactorcide("jobs", "cancel", job["job_id"])
    return job


class Following:
    """A ``submit --follow`` in the background, with its output in files."""

    def __init__(self, reactorcide: Program, directory: Path, *arguments: object) -> None:
        self._output, self._errors = directory / "output", directory / "errors"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self.process = reactorcide.start("submit", *arguments, stdout=output, stderr=errors)

    @property
    def output(self) -> bytes:
        return self._output.read_bytes()

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    @property
    def job_id(self) -> str:
        wait_until(lambda: " is " in self.errors, 20, "the job's id is shown")
        return self.errors.split()[1]

    def wait_for(self, text: bytes) -> None:
        wait_until(lambda: text in self.output, 20, f"{text!r} is shown")


def test_without_follow_prints_the_id_alone(reactorcide: Program) -> None:
    job_id = reactorcide.fine("submit", "plain", "--", "true").text
    job = reactorcide.fine("jobs", "show", job_id, "--json", "--wait", 20).json
    assert (job["job_id"], job["name"]) == (job_id, "plain")
    reactorcide("jobs", "cancel", job_id)


def test_follow_prints_the_log_and_exits_with_0(reactorcide: Program) -> None:
    result = reactorcide("submit", "ok", "--follow", "--", r"printf 'a\377\000b\n'; echo c")
    assert (result.code, result.output) == (0, b"a\xff\x00b\nc\n")
    assert "completed after" in result.errors


def test_follow_exits_with_the_jobs_exit_code(reactorcide: Program) -> None:
    result = reactorcide("submit", "three", "--follow", "--", "echo before; exit 3")
    assert result.code == 3
    assert result.output.startswith(b"before\n")
    assert "exit code 3" in result.errors


def test_follow_exits_with_124_when_the_job_times_out(reactorcide: Program) -> None:
    result = reactorcide("submit", "slow", "--follow", "--timeout", 1, "--", "echo begun; sleep 60")
    assert result.code == 124
    assert "timed out after 1 s" in result.errors
    assert b"begun\n" in result.output


def test_follow_exits_with_1_when_the_job_fails_without_an_exit_code(
    reactorcide: Program, service: Service
) -> None:
    (service.sources / "no-repository").mkdir()
    result = reactorcide(
        "submit", "bad", "--follow", "--git", service.sources / "no-repository", "--", "true"
    )
    assert result.code == 1
    assert "failed" in result.errors


def test_follow_is_live_and_exits_with_130_when_cancelled_elsewhere(
    reactorcide: Program, tmp_path: Path
) -> None:
    following = Following(reactorcide, tmp_path, "endless", "--follow", "--", "echo first; sleep 600")
    with following.process as process:
        following.wait_for(b"first\n")
        reactorcide.fine("jobs", "cancel", following.job_id)
        assert process.wait(20) == 130
    assert "cancelled" in following.errors


def test_ctrl_c_leaves_the_job_running_and_says_how_to_follow_it(
    reactorcide: Program, tmp_path: Path
) -> None:
    following = Following(reactorcide, tmp_path, "endless", "--follow", "--", "echo first; sleep 600")
    with following.process as process:
        following.wait_for(b"first\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    job_id = following.job_id
    assert f"reactorcide jobs logs -f {job_id}" in following.errors
    assert "Traceback" not in following.errors
    assert reactorcide.fine("jobs", "show", job_id, "--json").json["status"] == "running"
    reactorcide.fine("jobs", "cancel", job_id)


def test_follow_with_json_prints_the_job_as_it_ended(reactorcide: Program) -> None:
    result = reactorcide("submit", "both", "--follow", "--json", "--", "echo hello; exit 4")
    assert result.code == 4
    assert (result.json["status"], result.json["exit_code"]) == ("failed", 4)
    assert "hello\n" in result.errors


def test_single_argument_is_a_script_and_several_are_a_command_line(reactorcide: Program) -> None:
    script = reactorcide.fine("submit", "script", "--follow", "--", "echo $((1 + 1)); echo '  x'")
    assert script.output == b"2\n  x\n"
    words = reactorcide.fine("submit", "words", "--follow", "--", "echo", "$((1 + 1))", "a  b", "--help")
    assert words.output == b"$((1 + 1)) a  b --help\n"


def test_variables_reach_the_job(reactorcide: Program) -> None:
    result = reactorcide.fine(
        "submit", "env", "--follow", "--env", "A=1=2", "--env", "B=", "--", 'echo "$A|${B-unset}"'
    )
    assert result.output == b"1=2|\n"


def test_secret_variables_reach_the_job_and_are_not_shown(reactorcide: Program) -> None:
    caller = reactorcide.with_variables(FROM_HERE="s3cret-2")
    secret = ("--secret-env", "GIVEN=s3=cret-1", "--secret-env", "FROM_HERE")
    script = 'echo "$GIVEN $FROM_HERE $SHOWN"; echo "${#GIVEN} ${#FROM_HERE}"'
    result = caller.fine("submit", "secret", "--follow", "--env", "SHOWN=x", *secret, "--", script)
    assert result.output == b"[REDACTED] [REDACTED] x\n9 8\n"
    job_id = result.errors.split()[1]
    output = caller.fine("jobs", "show", job_id).text
    assert "GIVEN=[REDACTED]" in output
    assert "SHOWN=x" in output
    assert "s3" not in output + caller.fine("jobs", "show", job_id, "--json").text


def test_secret_option_adds_to_the_names_that_look_secret(reactorcide: Program, tmp_path: Path) -> None:
    more = ("--env", "A_TOKEN=abcd", "--secret-env", "GIVEN=abcd", "--", "true")
    assert submitted(reactorcide, "x", *more)["secret_env_vars"] == ["A_TOKEN", "GIVEN"]
    listed = {"job_env_vars": {"A": "abcd", "B_TOKEN": "abcd"}, "secret_env_vars": ["A"]}
    (tmp_path / "job.json").write_text(json.dumps(listed))
    assert submitted(reactorcide, "-f", tmp_path / "job.json", "x", *more)["secret_env_vars"] == [
        "A",
        "GIVEN",
    ]


def test_a_missing_secret_variable_is_an_error(lone: Program) -> None:
    result = lone("submit", "x", "--secret-env", "NOT_HERE", "--", "true")
    assert result.code == 2
    assert "there is no variable 'NOT_HERE' in the environment" in result.errors


def test_source_is_copied_in(reactorcide: Program) -> None:
    # Relative, to show that it is resolved here and not by the service.
    result = reactorcide.fine(
        "submit", "copy", "--follow", "--source", SAMPLE.name, "--", "ls -A", cwd=SAMPLE.parent
    )
    assert set(result.text.split()) == {path.name for path in SAMPLE.iterdir()}


def test_a_source_outside_of_the_roots_is_uploaded(reactorcide: Program, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("echo ran")
    (tmp_path / "ignored").write_text("x")
    (tmp_path / ".gitignore").write_text("ignored\n")
    job = reactorcide.fine(
        "submit", "up", "--follow", "--json", "--source", tmp_path, "--", "sh script; ls -A"
    ).json
    assert (job["source_path"], len(job["source_id"])) == (None, 64)
    assert reactorcide.fine("jobs", "logs", job["job_id"]).output == b"ran\n.gitignore\nscript\n"
    assert job["source_id"] in reactorcide.fine("jobs", "show", job["job_id"]).text


def elsewhere(reactorcide: Program, service: Service) -> Program:
    """Return the program as if the service were on another host."""
    return reactorcide.with_variables(
        REACTORCIDE_API_URL=service.url.replace("127.0.0.1", "0.0.0.0"),  # noqa: S104  # to connect to
        REACTORCIDE_API_TOKEN=(service.data_dir / "admin-token").read_text().strip(),
    )


def test_a_source_is_uploaded_to_another_host_and_once(
    reactorcide: Program, service: Service, tmp_path: Path
) -> None:
    source = tmp_path / "large"
    source.mkdir()
    # More than any other body may have.
    (source / "noise").write_bytes(os.urandom(5 << 20))
    away = elsewhere(reactorcide, service)
    directory = service.data_dir / "objects" / "sources"
    before = set(directory.iterdir()) if directory.exists() else set()
    first = submitted(away, "away", "--source", source, "--", "true")
    assert (first["source_path"], first["source_type"]) == (None, "copy")
    (uploaded,) = set(directory.iterdir()) - before
    # Sent again it would be stored anew, if only for a moment, and so change the directory.
    changed_ns = directory.stat().st_mtime_ns
    assert submitted(away, "away", "--source", source, "--", "true")["source_id"] == first["source_id"]
    assert directory.stat().st_mtime_ns == changed_ns
    assert (uploaded / "source.tar.gz").stat().st_size > 5 << 20
    # Below a root, but the service does not know what is on this host.
    assert submitted(away, "away", "--source", SAMPLE, "--", "true")["source_id"]
    assert "no directory" in away.refused("submit", "x", "--source", tmp_path / "nothing", "--", "true")


def test_upload_option_forces_an_upload(reactorcide: Program) -> None:
    job = submitted(reactorcide, "wish", "--source", SAMPLE, "--upload", "--", "true")
    assert (job["source_path"], len(job["source_id"])) == (None, 64)
    assert reactorcide("submit", "x", "--upload", "--", "true").code == 2


def test_missing_directory_is_refused_by_the_service(reactorcide: Program, tmp_path: Path) -> None:
    refused = reactorcide.refused("submit", "x", "--source", tmp_path / "nothing", "--", "true")
    assert "source roots" in refused


def test_other_errors_are_reported_after_the_upload(reactorcide: Program, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refused = reactorcide.refused("submit", "x", "--source", tmp_path, "--code-dir", "relative", "--", "true")
    assert "code_dir" in refused


def test_artifacts_of_a_job_are_a_source_filtered_by_globs(reactorcide: Program) -> None:
    script = "cd /job/artifacts && echo one >1.txt && echo two >2.log && mkdir d && echo three >d/3.txt"
    job = reactorcide.fine(
        *("submit", "make", "--follow", "--json", "--artifact", "*.txt", "--artifact", "d/**", "--", script)
    ).json
    result = reactorcide.fine(
        "submit", "use", "--follow", "--source-job", job["job_id"], "--", "cat 1.txt d/3.txt; ls"
    )
    assert result.output == b"one\nthree\n1.txt\nd\n"


def test_terminal_shows_upload_progress(reactorcide: Program, service: Service, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(os.urandom(1 << 20))
    terminal, side = pty.openpty()
    # Followed to its end, so that it leaves no active job.
    arguments = ("submit", "shown", "--follow", "--upload", "--source", tmp_path, "--", "true")
    with reactorcide.with_variables(TERM="xterm", COLUMNS="100").start(
        *arguments, stdout=subprocess.DEVNULL, stderr=side
    ) as process:
        os.close(side)
        output = b""
        try:
            while chunk := os.read(terminal, 4096):
                output += chunk
        except OSError:
            # The other side is closed.
            pass
        assert process.wait(20) == 0, output
    os.close(terminal)
    assert b"uploading" in output
    assert b"1.0/1.0 MB" in output


def test_git_is_cloned_at_the_ref(reactorcide: Program, service: Service) -> None:
    repository = service.sources / "repository"
    git = ("git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e")
    subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True)
    for branch in ("main", "other"):
        if branch != "main":
            subprocess.run([*git, "checkout", "-q", "-b", branch], check=True)
        (repository / "file").write_text(f"on {branch}\n")
        subprocess.run([*git, "add", "file"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", branch], check=True)
    result = reactorcide.fine(
        "submit", "git", "--follow", "--git", repository, "--ref", "main", "--", "cat file"
    )
    assert result.output.endswith(b"on main\n")


def test_every_option_reaches_the_service(reactorcide: Program) -> None:
    job = submitted(
        reactorcide,
        *("all", "--image", "an/image:1", "--queue", "nobody", "--timeout", 7, "--priority", -3),
        *("--cpu-limit", 0.5, "--memory-limit", "64m", "--code-dir", "/code", "--job-dir", "/code/a"),
        *("--description", "why", "--env", "K=V", "--secret-env", "S=abcd", "--", "true"),
    )
    expected = {
        "runner_image": "an/image:1",
        "queue_name": "nobody",
        "timeout_seconds": 7,
        "priority": -3,
        "cpu_limit": 0.5,
        "memory_limit": 64 << 20,
        "code_dir": "/code",
        "job_dir": "/code/a",
        "description": "why",
        "job_env_vars": {"K": "V", "S": "[REDACTED]"},
        "secret_env_vars": ["S"],
        "source_type": "copy",
        "source_path": None,
        "job_command": "true",
    }
    assert {field: job[field] for field in expected} == expected


def test_option_leaves_out_submodules(reactorcide: Program) -> None:
    git = ("--git", "https://example.com/x.git", "--", "true")
    assert submitted(reactorcide, "all", *git)["git_submodules"] is True
    job = submitted(reactorcide, "none", "--no-submodules", *git)
    assert job["git_submodules"] is False
    definition = json.dumps(
        {field: job[field] for field in ("name", "job_command", "git_url", "git_submodules")}
    )
    again = submitted(reactorcide, "-f", "-", "--submodules", input=definition.encode())
    assert again["git_submodules"] is True
    again = submitted(reactorcide, "-f", "-", "--source", SAMPLE, input=definition.encode())
    assert again["git_submodules"] is None


def test_the_history_and_the_tags_of_a_repository_are_options(reactorcide: Program) -> None:
    git = ("--git", "https://example.com/x.git", "--", "true")
    job = submitted(reactorcide, "some", *git)
    assert (job["git_depth"], job["git_tags"]) == (1, False)
    job = submitted(reactorcide, "all", "--git-depth", "0", "--git-tags", *git)
    assert (job["git_depth"], job["git_tags"]) == (0, True)
    definition = json.dumps({field: job[field] for field in ("name", "job_command", "git_url", "git_tags")})
    again = submitted(reactorcide, "-f", "-", "--no-git-tags", input=definition.encode())
    assert again["git_tags"] is False
    again = submitted(reactorcide, "-f", "-", "--source", SAMPLE, input=definition.encode())
    assert (again["git_depth"], again["git_tags"]) == (None, None)
    refused = reactorcide("submit", "x", "--git-depth", "2", "--", "true")
    assert refused.code == 2
    assert "--git-depth needs a repository" in refused.errors


def test_options_can_come_from_variables(reactorcide: Program) -> None:
    job = submitted(reactorcide.with_variables(REACTORCIDE_SUBMIT_DESCRIPTION="set"), "vars", "--", "true")
    assert job["description"] == "set"


def test_options_override_the_fields_of_a_file(reactorcide: Program, tmp_path: Path) -> None:
    definition = {
        "name": "from file",
        "job_command": "echo file",
        "source_type": "git",
        "git_url": "https://example.com/x.git",
        "git_ref": "main",
        "priority": 5,
        "job_env_vars": {"A": "file", "B": "file"},
    }
    file = tmp_path / "job.json"
    file.write_text(json.dumps(definition))
    as_it_is = submitted(reactorcide, "-f", file)
    assert {field: as_it_is[field] for field in definition} == definition

    changed = submitted(
        reactorcide, "-f", file, "--source", SAMPLE, "--env", "B=option", "--priority", 6, "--", "echo", "a b"
    )
    assert changed["name"] == "from file"
    assert (changed["source_type"], changed["source_path"], changed["git_url"], changed["git_ref"]) == (
        *("copy", str(SAMPLE)),
        *(None, None),
    )
    assert changed["job_env_vars"] == {"A": "file", "B": "option"}
    assert (changed["priority"], changed["job_command"]) == (6, "echo 'a b'")


def test_file_can_be_stdin(reactorcide: Program) -> None:
    job = submitted(reactorcide, "-f", "-", input=b'{"name": "piped", "job_command": "true"}')
    assert (job["name"], job["source_type"]) == ("piped", "copy")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_file_that_is_not_a_job_is_a_clear_error(reactorcide: Program, content: bytes) -> None:
    assert "<stdin>" in reactorcide.refused("submit", "-f", "-", input=content)


def test_refusal_of_the_service_is_printed(reactorcide: Program) -> None:
    assert "job_command" in reactorcide.refused("submit", "-f", "-", input=b'{"name": "x"}')
    misspelt = b'{"name": "x", "job_command": "true", "timeout_second": 1}'
    assert "timeout_second" in reactorcide.refused("submit", "-f", "-", input=misspelt)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("name",),
        ("--", "command"),
        ("name", "--source", ".", "--git", "https://example.com/x.git", "--", "true"),
        ("name", "--ref", "main", "--", "true"),
        ("name", "--no-submodules", "--", "true"),
        ("name", "--env", "NOVALUE", "--", "true"),
        ("name", "--timeout", "soon", "--", "true"),
        ("-f", "no-such-file.json"),
    ],
)
def test_wrong_usage_exits_with_2(lone: Program, arguments: tuple[str, ...]) -> None:
    result = lone("submit", *arguments)
    assert (result.code, result.output) == (2, b"")
    assert "Usage: reactorcide submit" in result.errors


def test_a_terminal_gets_a_spinner_while_the_job_waits(reactorcide: Program, tmp_path: Path) -> None:
    terminal, side = pty.openpty()
    output = tmp_path / "output"
    try:
        with (
            output.open("wb") as file,
            reactorcide.with_variables(TERM="xterm").start(
                "submit", "waits", "--queue", "q", "--follow", "--", "echo here", stdout=file, stderr=side
            ) as process,
        ):
            os.close(side)
            screen = b""
            while b"completed" not in screen:
                screen += os.read(terminal, 4096)
            assert process.wait(20) == 0
    finally:
        os.close(terminal)
    assert b"waiting for waits to start" in screen
    assert output.read_bytes() == b"here\n"


def test_names_in_messages_do_not_control_the_terminal(lone: Program, tmp_path: Path) -> None:
    file = tmp_path / "a\x1b]0;owned\x07.json"
    file.write_text("{")
    refused = lone("submit", "-f", file)
    assert refused.code == 1
    assert "a\\x1b]0;owned\\x07.json" in refused.errors
    assert "\x1b" not in refused.errors
