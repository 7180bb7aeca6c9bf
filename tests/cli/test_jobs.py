"""``reactorcide jobs`` and what all client commands have in common."""

import hashlib
import http.server
import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from reactorcide.lib.ids import new_id
from tests.cli.conftest import SAMPLE, Program, Service, program_of
from tests.conftest import NewService
from tests.support.launch import CHECKOUT
from tests.support.waiting import wait_until

_HEAVY = ("flask", "grpc", "docker", "peewee", "pydantic")


@pytest.fixture(scope="module")
def finished(service: Service) -> dict[str, Any]:
    """A job that has completed, with artifacts."""
    job: dict[str, Any] = (
        program_of(service)
        .fine("submit", "finished", "--source", SAMPLE, "--follow", "--json", "--", "sh ci.sh")
        .json
    )
    return job


def running(reactorcide: Program, *arguments: object) -> str:
    """Submit a job that goes on until it is cancelled, and return its id once it has printed ``begun``."""
    job_id = reactorcide.fine(
        "submit", "endless", *arguments, "--", "echo one; echo two; echo begun; sleep 600"
    ).text
    wait_until(lambda: "begun" in reactorcide.fine("jobs", "logs", job_id).text, 20, "the job has begun")
    return job_id


def status(reactorcide: Program, job_id: str) -> str:
    """Return a job's status."""
    return str(reactorcide.fine("jobs", "show", job_id, "--json").json["status"])


def on_a_terminal(program: Program, *arguments: object) -> str:
    """Return what a command prints on a terminal of 80 columns."""
    terminal, side = pty.openpty()
    with program.with_variables(TERM="xterm", COLUMNS="80").start(
        *arguments, stdout=side, stderr=side
    ) as process:
        os.close(side)
        output = b""
        # Reading fails when the other side is closed.
        while chunk := _read(terminal):
            output += chunk
        assert process.wait(20) == 0, output
    os.close(terminal)
    return output.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


# --- list ---------------------------------------------------------------------------------------


def test_list_filters(reactorcide: Program, finished: dict[str, Any]) -> None:
    def listed(*arguments: object) -> list[str]:
        page = reactorcide.fine("jobs", "list", "--json", *arguments).json
        return [job["job_id"] for job in page["jobs"]]

    job_id = finished["job_id"]
    other = reactorcide.fine("submit", "another", "--queue", "elsewhere", "--", "true").text
    reactorcide("jobs", "cancel", other)
    assert {other, job_id} <= set(listed())
    assert listed("--queue", "elsewhere") == [other]
    assert listed("--name", "fini") == [job_id]
    assert job_id in listed("--status", "completed", "--status", "failed")
    assert job_id not in listed("--status", "failed", "--status", "running")
    assert listed("--limit", 1) == [other]
    assert job_id in listed("--user", finished["user_id"])
    assert listed("--user", new_id()) == []


def test_list_in_a_pipe_is_plain_and_not_shortened(reactorcide: Program) -> None:
    name = "a long name " * 15 + "\x1b[31m\n[red]end"
    job_id = reactorcide.fine("submit", name, "--queue", "plain", "--", "exit 7").text
    assert reactorcide.fine("jobs", "show", job_id, "--wait", 20, "--json").json["status"] != "submitted"
    wait_until(lambda: status(reactorcide, job_id) == "failed", 20, "it has failed")
    header, row = reactorcide.fine("jobs", "list", "--queue", "plain").text.splitlines()
    assert header.split() == ["ID", "NAME", "STATUS", "EXIT", "QUEUE", "AGE", "DURATION"]
    assert row.startswith(job_id)
    assert r"a long name \x1b[31m\n[red]end  failed  7     plain  " in row


def test_list_on_a_terminal_is_coloured_and_fits_the_width(
    reactorcide: Program, finished: dict[str, Any]
) -> None:
    output = on_a_terminal(reactorcide, "jobs", "list", "--status", "completed")
    assert "\x1b[32mcompleted" in output
    assert finished["job_id"] in output
    plain = on_a_terminal(reactorcide.with_variables(NO_COLOR="1"), "jobs", "list", "--status", "completed")
    assert "completed" in plain
    assert not re.search(r"\x1b\[[0-9;]*3\d", plain)


def test_list_says_when_there_are_more(reactorcide: Program, finished: dict[str, Any]) -> None:
    first = reactorcide.fine("submit", "more", "--", "true").text
    reactorcide("jobs", "cancel", first)
    assert re.search(r"1 of \d+ jobs", reactorcide.fine("jobs", "list", "--limit", 1).errors)


# --- show ---------------------------------------------------------------------------------------


def test_show_prints_the_job(reactorcide: Program, finished: dict[str, Any]) -> None:
    text = reactorcide.fine("jobs", "show", finished["job_id"]).text
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in text.splitlines())
    assert rows["Job"] == finished["job_id"]
    assert (rows["Status"], rows["Exit code"], rows["Command"]) == ("completed", "0", "sh ci.sh")
    assert "Error" not in rows
    assert reactorcide.fine("jobs", "show", finished["job_id"], "--json").json == finished


def test_show_of_a_waiting_job_says_what_it_waits_for(tmp_path: Path, new_service: NewService) -> None:
    data_dir = new_service(concurrency=0).data_dir
    idle = Program(tmp_path, {"REACTORCIDE_DATA_DIR": str(data_dir)})
    job_id = idle.fine("submit", "x", "--queue", "nobody", "--", "true").text
    text = idle.fine("jobs", "show", job_id).text
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in text.splitlines())
    assert rows["Waits"] == "no worker takes jobs from the queue nobody"


def test_show_waits_for_another_status(reactorcide: Program) -> None:
    job_id = running(reactorcide)
    with reactorcide.start(
        "jobs", "show", job_id, "--wait", 30, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            # What would answer at once has answered by then.
            process.wait(1.5)
        reactorcide.fine("jobs", "cancel", job_id)
        output, _ = process.communicate(timeout=20)
    assert b"cancelled" in output


# --- logs ---------------------------------------------------------------------------------------


def test_logs_prints_the_log(reactorcide: Program, finished: dict[str, Any]) -> None:
    whole = reactorcide.fine("jobs", "logs", finished["job_id"]).output
    assert b"== test\n" in whole
    assert whole.endswith(b"== done\n")
    assert reactorcide.fine("jobs", "logs", finished["job_id"], "--tail", 1).output == b"== done\n"
    assert reactorcide.fine("jobs", "logs", finished["job_id"], "--attempt", 1).output == whole
    assert reactorcide.fine("jobs", "logs", finished["job_id"], "--follow").output == whole
    assert "no attempt 2" in reactorcide.refused("jobs", "logs", finished["job_id"], "--attempt", 2)


def test_logs_follow_ends_with_the_job(reactorcide: Program, tmp_path: Path) -> None:
    job_id = running(reactorcide)
    output = tmp_path / "output"
    with (
        output.open("wb") as file,
        reactorcide.start("jobs", "logs", "-f", "--tail", 1, job_id, stdout=file, stderr=file) as process,
    ):
        wait_until(lambda: output.read_bytes() == b"begun\n", 20, "the last line is shown")
        assert process.poll() is None
        reactorcide.fine("jobs", "cancel", job_id)
        assert process.wait(20) == 0


# --- cancel, rerun, delete ----------------------------------------------------------------------


def test_cancel_continues_after_an_unknown_job(reactorcide: Program, finished: dict[str, Any]) -> None:
    unknown, job_id = new_id(), running(reactorcide)
    result = reactorcide("jobs", "cancel", unknown, finished["job_id"], job_id)
    assert result.code == 1
    assert result.text == f"{job_id} cancelled"
    assert f"{unknown}: " in result.errors
    assert "already completed" in result.errors
    assert status(reactorcide, job_id) == "cancelled"
    assert reactorcide.fine("jobs", "cancel", job_id).text == f"{job_id} cancelled"


def test_rerun_submits_the_job_again(reactorcide: Program, finished: dict[str, Any]) -> None:
    result = reactorcide.fine("jobs", "rerun", finished["job_id"], "--follow")
    assert result.output.endswith(b"== done\n")
    again = reactorcide.fine("jobs", "rerun", finished["job_id"], "--json").json
    assert again["rerun_of"] == finished["job_id"] != again["job_id"]
    reactorcide("jobs", "cancel", again["job_id"])
    bare = reactorcide.fine("jobs", "rerun", finished["job_id"]).text
    assert status(reactorcide, bare)
    reactorcide("jobs", "cancel", bare)


def test_delete_removes_the_job(reactorcide: Program) -> None:
    first, second = (reactorcide.fine("submit", "short", "--", "true").text for _ in range(2))
    assert reactorcide.fine("jobs", "delete", first, second).text.splitlines() == [
        f"{first} deleted",
        f"{second} deleted",
    ]
    assert first in reactorcide.refused("jobs", "delete", first)
    assert "no job" in reactorcide.refused("jobs", "show", second)


# --- test results ------------------------------------------------------------------------------


def test_test_results_are_shown(reactorcide: Program) -> None:
    cases = "".join(
        f'<testcase name="t{n}"><failure message="no {n}&#10;more">text</failure></testcase>'
        for n in range(22)
    )
    script = (
        "cd /job/artifacts; echo '# Done' >summary.md; echo '<x/>' >other.xml; "
        f"""echo '<testsuite name="price"><testcase/>{cases}</testsuite>' >a.xml; exit 3"""
    )
    followed = reactorcide("submit", "tested", "--follow", "--", script)
    assert followed.code == 3
    named = [f"price t{n}: no {n}" for n in range(20)]
    *_, summary = followed.errors.partition("tests: ")
    assert [line.strip() for line in summary.splitlines()] == ["1 passed, 22 failed", *named, "and 2 more"]
    job_id = followed.errors.split()[1]
    output = reactorcide.fine("jobs", "show", job_id).text
    rows = [line.strip() for line in output.partition("\nTests")[2].splitlines()][:22]
    assert rows == ["1 passed, 22 failed", *named, "and 2 more"]
    tests = reactorcide("jobs", "tests", job_id)
    assert tests.text.splitlines() == [*(f"price t{n}: no {n}" for n in range(22)), "1 passed, 22 failed"]
    assert tests.errors == "other.xml does not count: it is not JUnit XML: it begins with <x>\n"
    assert reactorcide.fine("jobs", "tests", job_id, "--json").json["failed"] == 22
    assert reactorcide.fine("jobs", "summary", job_id).text == "# Done"


def test_job_without_test_results_says_so(reactorcide: Program, finished: dict[str, Any]) -> None:
    assert "Tests" not in reactorcide.fine("jobs", "show", finished["job_id"]).text
    assert reactorcide.fine("jobs", "tests", finished["job_id"]).text == "no tests"
    assert "has no artifact summary.md" in reactorcide.refused("jobs", "summary", finished["job_id"])


# --- artifacts ----------------------------------------------------------------------------------


def test_artifacts_are_listed(reactorcide: Program, finished: dict[str, Any]) -> None:
    items = reactorcide.fine("jobs", "artifacts", finished["job_id"], "--json").json["artifacts"]
    assert [item["path"] for item in items] == ["report.txt", "tests.tap"]
    header, *rows = reactorcide.fine("jobs", "artifacts", finished["job_id"]).text.splitlines()
    assert header.split() == ["SIZE", "SHA256", "PATH"]
    assert [row.split()[-2:] for row in rows] == [[item["sha256"][:12], item["path"]] for item in items]


def test_artifacts_are_downloaded(reactorcide: Program, tmp_path: Path) -> None:
    odd = "a%20b #?&ü [x]"
    script = f"cd $REACTORCIDE_ARTIFACTS_DIR && mkdir -p d/e && cd d/e && echo 1 >'{odd}' && : >empty"
    job = reactorcide.fine("submit", "leaves", "--follow", "--json", "--", script).json
    output = tmp_path / "not" / "there yet"
    listing = reactorcide.fine("jobs", "artifacts", job["job_id"], "--output", output, "--json").json
    files = {str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()}
    assert files.keys() == {item["path"] for item in listing["artifacts"]} == {f"d/e/{odd}", "d/e/empty"}
    for item in listing["artifacts"]:
        assert hashlib.sha256(files[item["path"]].read_bytes()).hexdigest() == item["sha256"]
        # Like a file that any program makes.
        assert files[item["path"]].stat().st_mode & 0o777 == 0o644


def test_download_never_writes_outside_of_its_directory(
    reactorcide: Program, finished: dict[str, Any], tmp_path: Path
) -> None:
    # A link in place of a file is replaced, never written through.
    outside = tmp_path / "outside"
    outside.write_text("mine")
    output = tmp_path / "output"
    output.mkdir()
    (output / "report.txt").symlink_to(outside)
    command = ("jobs", "artifacts", finished["job_id"], "--output", output)
    assert "exists already" in reactorcide.refused(*command)
    reactorcide.fine(*command, "--overwrite")
    assert outside.read_text() == "mine"
    assert not (output / "report.txt").is_symlink()


def test_existing_files_are_neither_overwritten_nor_downloaded_again(
    reactorcide: Program, finished: dict[str, Any], tmp_path: Path
) -> None:
    command = ("jobs", "artifacts", finished["job_id"], "--output", tmp_path)
    reactorcide.fine(*command)
    report = tmp_path / "report.txt"
    content, inode = report.read_bytes(), report.stat().st_ino
    (tmp_path / "tests.tap").unlink()
    # As after a download that was interrupted.
    reactorcide.fine(*command)
    assert report.stat().st_ino == inode
    assert (tmp_path / "tests.tap").exists()

    report.write_bytes(content[::-1])
    (tmp_path / "tests.tap").unlink()
    assert f"{report} exists already and differs" in reactorcide.refused(*command)
    assert report.read_bytes() == content[::-1]
    assert not (tmp_path / "tests.tap").exists()
    reactorcide.fine(*command, "--overwrite")
    assert report.read_bytes() == content


class Liar(http.server.BaseHTTPRequestHandler):
    """A service that answers with a listing of its choice, and with the same bytes for each artifact."""

    protocol_version = "HTTP/1.1"
    items: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        listing = {"artifacts": self.items, "artifacts_truncated": False}
        body = json.dumps(listing).encode() if self.path.endswith("/artifacts") else b"planted"
        self.send_response(404 if self.path.endswith("/gone") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:3] if self.path.endswith("/cut") else body)
        self.close_connection = self.path.endswith("/cut")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def liar(lone: Program) -> Iterator[Program]:
    """The program, against a service that lies."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield lone.with_variables(REACTORCIDE_API_URL=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


PLANTED = hashlib.sha256(b"planted").hexdigest()


@pytest.mark.parametrize(
    ("path", "size", "sha256", "problem"),
    [
        *(
            (path, 7, PLANTED, "outside")
            for path in ("../x", "/etc/x", "a/../../x", "", ".", "a//b", "way/x")
        ),
        ("x", 6, PLANTED, "damaged"),
        ("x", 8, PLANTED, "damaged"),
        ("x", 7, "0" * 64, "damaged"),
        ("dir", 7, PLANTED, "exists already"),
    ],
)
def test_hostile_listing_writes_nothing_outside_of_the_directory(
    liar: Program, tmp_path: Path, path: str, size: int, sha256: str, problem: str
) -> None:
    output, outside = tmp_path / "output", tmp_path / "outside"
    (output / "dir").mkdir(parents=True)
    outside.mkdir()
    (output / "way").symlink_to(outside)
    good = {"path": "z-good", "size": 7, "sha256": PLANTED}
    Liar.items = [{"path": path, "size": size, "sha256": sha256}, good]
    assert problem in liar.refused("jobs", "artifacts", new_id(), "--output", output)
    # A file that arrives damaged is removed; the others stay.
    others = ["z-good"] if problem == "damaged" else []
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["dir", "output", "outside", "way", *others]


@pytest.mark.parametrize("name", ["gone", "cut"])
def test_failed_artifact_does_not_end_the_download(liar: Program, tmp_path: Path, name: str) -> None:
    Liar.items = [{"path": path, "size": 7, "sha256": PLANTED} for path in ("a", name, "z")]
    result = liar("jobs", "artifacts", new_id(), "--output", tmp_path)
    assert result.code == 1
    assert result.errors.startswith(f"reactorcide: {name}: ")
    assert result.errors.endswith("(1 of 3 artifacts could not be downloaded)\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "z"]


def test_executable_bit_is_restored(reactorcide: Program, tmp_path: Path) -> None:
    script = "cd $REACTORCIDE_ARTIFACTS_DIR; echo x >text; echo x >tool; chmod 750 tool; ln tool 'two\nlines'"
    job = reactorcide.fine("submit", "leaves", "--follow", "--json", "--", script).json
    command = ("jobs", "artifacts", job["job_id"], "--output", tmp_path)
    listing = reactorcide.fine(*command, "--json").json["artifacts"]
    modes = {"text": 0o644, "tool": 0o755, "two\nlines": 0o755}
    assert {item["path"]: item["executable"] for item in listing} == {
        path: mode == 0o755 for path, mode in modes.items()
    }
    for _ in range(2):
        assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == modes
        # As downloaded by an older version: it is mended without being downloaded again.
        (tmp_path / "tool").chmod(0o644)
        (tmp_path / "text").chmod(0o755)
        reactorcide.fine(*command)


def test_unwritable_download_is_a_clear_error(
    reactorcide: Program, finished: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "report.txt").mkdir()
    assert "cannot be written" in reactorcide.refused(
        "jobs", "artifacts", finished["job_id"], "--output", tmp_path, "--overwrite"
    )
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".reactorcide")] == []


# --- what all of them have in common ------------------------------------------------------------


def test_client_commands_import_few_modules(reactorcide: Program, finished: dict[str, Any]) -> None:
    script = "import atexit, sys; sys.path.insert(0, sys.argv.pop(1))\n"
    script += "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    script += "from reactorcide.cli import main; main()"
    python = (sys.executable, "-c", script, str(CHECKOUT))

    listed = reactorcide.fine("jobs", "list", python=python)
    assert finished["job_id"] in listed.text
    assert not set(_HEAVY) & set(listed.errors.split())
    assert "requests" in listed.errors.split()

    helped = reactorcide.fine("--help", python=python)
    assert "submit" in helped.text
    assert not {*_HEAVY, "requests", "rich"} & set(helped.errors.split())


def test_package_runs_as_a_module(lone: Program) -> None:
    python = (sys.executable, "-m", "reactorcide")
    assert lone.fine("--version", python=python).text.startswith("reactorcide")


def test_unreachable_service_is_a_clear_error(lone: Program) -> None:
    away = lone.with_variables(REACTORCIDE_API_URL="http://127.0.0.1:9")
    assert "reactorcide serve" in away.refused("jobs", "list")
    assert "reactorcide serve" in away.refused("submit", "x", "--", "true")


def test_refused_token_error_names_where_the_token_is_from(
    reactorcide: Program, service: Service, tmp_path: Path
) -> None:
    wrong = reactorcide.with_variables(REACTORCIDE_API_TOKEN="rct_0123456789abcdef")
    assert "REACTORCIDE_API_TOKEN" in wrong.refused("jobs", "list")
    assert "spaces" in reactorcide.with_variables(REACTORCIDE_API_TOKEN="a b").refused("jobs", "list")
    odd = reactorcide.with_variables(REACTORCIDE_API_TOKEN="schlüssel-schlüssel")
    assert "not known" in odd.refused("jobs", "list")

    # A directory with the service's socket in it, and another token or none.
    (tmp_path / "api.sock").symlink_to(service.data_dir / "api.sock")
    without = reactorcide.with_variables(REACTORCIDE_DATA_DIR=str(tmp_path))
    assert str(tmp_path / "admin-token") in without.refused("jobs", "list")
    (tmp_path / "admin-token").write_text("rct_0123456789abcdef\n")
    assert str(tmp_path / "admin-token") in without.refused("jobs", "list")


@pytest.mark.parametrize("command", ["show", "logs", "cancel", "rerun", "delete", "artifacts"])
def test_malformed_id_is_wrong_usage(lone: Program, command: str) -> None:
    result = lone("jobs", command, "../users/me")
    assert result.code == 2
    assert "is not the id of a job" in result.errors
    unknown = lone.with_variables(REACTORCIDE_API_URL="http://127.0.0.1:9")("jobs", command, new_id())
    assert unknown.code == 1


def test_unencodable_characters_are_replaced_on_stdout(reactorcide: Program) -> None:
    job_id = reactorcide.fine("submit", "two 仕事", "--", "true").text
    narrow = reactorcide.with_variables(PYTHONIOENCODING="latin-1")
    assert "two ??" in narrow.fine("jobs", "show", job_id).text
    reactorcide("jobs", "cancel", job_id)


# --- pin ----------------------------------------------------------------------------------------


def test_pins_are_added_shown_and_removed(reactorcide: Program, finished: dict[str, Any]) -> None:
    job_id = finished["job_id"]
    assert "Pinned" not in reactorcide.fine("jobs", "show", job_id).text
    assert reactorcide.fine("jobs", "pin", job_id).text == f"{job_id} pinned"
    assert re.search(r"^Pinned +yes$", reactorcide.fine("jobs", "show", job_id).text, re.MULTILINE)
    pinned = reactorcide.fine("jobs", "list", "--pinned", "--json").json
    assert [job["job_id"] for job in pinned["jobs"]] == [job_id]
    assert reactorcide.fine("jobs", "unpin", job_id).text == f"{job_id} unpinned"
    assert reactorcide.fine("jobs", "list", "--pinned", "--json").json["total"] == 0
