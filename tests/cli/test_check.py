"""``reactorcide check`` and ``reactorcide init``, in checkouts as users have them."""

import os
from pathlib import Path

import pytest

from reactorcide.workflows.definition import check as check_files
from tests.cli.conftest import Program, Result
from tests.support.launch import LAUNCHER

GOOD = """\
name: CI
on: push
jobs:
  test: {command: make, matrix: {n: [1, 2]}}
  ship: {command: x, needs: test}
"""
BAD = "name: CI\non: push\njobs:\n  test: {comand: make}\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / ".reactorcide" / "workflows").mkdir(parents=True)
    (root / "src" / "deep").mkdir(parents=True)
    return root


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path, {})


def run(program: Program, directory: Path, *arguments: str) -> Result:
    return program(*arguments, cwd=directory)


def test_valid_file_exits_with_0_and_prints_nothing_on_stdout(program: Program, checkout: Path) -> None:
    (checkout / ".reactorcide/workflows/ci.yaml").write_text(GOOD)
    result = run(program, checkout, "check")

    assert (result.code, result.output) == (0, b"")
    assert result.errors == ".reactorcide/workflows/ci.yaml: CI, 3 jobs: no error\n"


def test_error_exits_with_1_and_shows_a_path_relative_to_the_working_directory(
    program: Program, checkout: Path
) -> None:
    (checkout / ".reactorcide/workflows/ci.yaml").write_text(GOOD)
    (checkout / ".reactorcide/workflows/bad.yml").write_text(BAD)

    file = ".reactorcide/workflows/bad.yml"
    for directory, prefix in ((checkout, ""), (checkout / "src" / "deep", "../../")):
        result = run(program, directory, "check")
        assert result.code == 1
        assert result.text.splitlines() == [
            f"{prefix}{file}:4:3: the job 'test' needs the key command, with a script",
            f"{prefix}{file}:4:10: 'comand' is not a key of a job; did you mean command?",
        ]


def test_single_file_is_checked(program: Program, checkout: Path) -> None:
    (checkout / ".reactorcide/workflows/ci.yaml").write_text(GOOD)
    (checkout / ".reactorcide/workflows/bad.yml").write_text(BAD)
    (checkout / "other.yaml").write_text(BAD)
    (checkout / ".reactorcide/jobs").mkdir()
    (checkout / ".reactorcide/jobs/unit.yaml").write_text("name: unit\ncommand: x\n")

    one = run(program, checkout / "src", "check", "../.reactorcide/workflows/ci.yaml")
    assert (one.code, one.output) == (0, b"")
    # Any workflow may take it, so that all are checked.
    assert run(program, checkout, "check", ".reactorcide/jobs/unit.yaml").code == 1
    other = run(program, checkout, "check", "other.yaml")
    assert (other.code, other.output) == (1, b"")
    assert "other.yaml is not a workflow file of" in other.errors


def test_json_has_workflows_with_their_graph_and_all_problems(program: Program, checkout: Path) -> None:
    (checkout / ".reactorcide/workflows/ci.yaml").write_text(GOOD)
    (checkout / ".reactorcide/workflows/bad.yml").write_text(BAD)
    result = run(program, checkout, "check", "--json")

    assert result.code == 1
    assert result.json["ok"] is False
    bad, good = result.json["workflows"]
    assert (bad["id"], bad["ok"]) == ("bad", False)
    assert good["jobs"] == [
        {"name": "test (1)", "needs": []},
        {"name": "test (2)", "needs": []},
        {"name": "ship", "needs": ["test (1)", "test (2)"]},
    ]
    assert result.json["problems"][1] == {
        "file": ".reactorcide/workflows/bad.yml",
        "line": 4,
        "column": 10,
        "severity": "error",
        "message": "'comand' is not a key of a job; did you mean command?",
    }


def test_warnings_are_shown_and_exit_with_0(program: Program, checkout: Path) -> None:
    (checkout / ".reactorcide/workflows/ci.yaml").write_text(
        GOOD.replace("command: x", "command: x, raw_command: true")
    )
    result = run(program, checkout, "check")

    assert result.code == 0
    assert ".reactorcide/workflows/ci.yaml:5:22: warning: raw_command means nothing here" in result.text


def test_no_workflow_files_is_an_error_with_advice(program: Program, checkout: Path) -> None:
    result = run(program, checkout, "check")
    assert result.code == 1
    assert "there is no .yaml or .yml file in" in result.errors
    (checkout / ".reactorcide/workflows").rmdir()
    result = run(program, checkout, "check")
    assert result.code == 1
    assert "'reactorcide init' writes a first workflow" in result.errors


def test_workflows_above_the_repository_are_ignored(program: Program, checkout: Path) -> None:
    (checkout / ".reactorcide/workflows/ci.yaml").write_text(GOOD)
    (checkout / "src" / ".git").mkdir()

    assert run(program, checkout / "src" / "deep", "check").code == 1


def test_wrong_usage_exits_with_2(program: Program, checkout: Path) -> None:
    assert run(program, checkout, "check", "nope").code == 2


def test_deleted_working_directory_is_an_error_with_advice(program: Program, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    # As in a shell that stays in a directory while it is deleted.
    delete = ("sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *LAUNCHER)
    assert program("check", cwd=gone, python=delete).errors == (
        "reactorcide: the current directory has been deleted; change to another one, as with: cd ~\n"
    )


@pytest.mark.parametrize(
    "target",
    [
        *("../../../outside.yaml", "/etc/hostname", "ci.yaml", "../../nope"),
        *("../../other.yaml", "../../folder", "../../up/x.yaml"),
    ],
)
def test_link_out_of_the_repository_is_refused_as_in_runs(
    program: Program, checkout: Path, target: str
) -> None:
    for file in (checkout.parent / "outside.yaml", checkout.parent / "x.yaml", checkout / "ci.yaml"):
        file.write_text(GOOD)
    (checkout / "other.yaml").symlink_to("../outside.yaml")
    (checkout / "folder").mkdir()
    (checkout / "up").symlink_to("..")
    (checkout / ".reactorcide/workflows/ci.yaml").symlink_to(target)
    result = run(program, checkout, "check")
    assert result.code == 1
    assert "ci.yaml is a link, but not to a regular file of the repository" in result.errors


def test_link_within_the_repository_is_followed(program: Program, checkout: Path) -> None:
    (checkout / "shared").mkdir()
    (checkout / "shared" / "ci").write_text(GOOD)
    (checkout / ".reactorcide/workflows/ci.yaml").symlink_to("../../shared/ci")
    assert run(program, checkout, "check").code == 0


@pytest.mark.parametrize("folder", [".reactorcide", ".reactorcide/workflows"])
def test_a_folder_that_is_a_link_is_refused(program: Program, checkout: Path, folder: str) -> None:
    (checkout / ".reactorcide/workflows/ci.yaml").write_text(GOOD)
    (checkout / folder).rename(checkout / "elsewhere")
    (checkout / folder).symlink_to(checkout / "elsewhere")
    result = run(program, checkout, "check")
    assert result.code == 1
    assert f"{folder} is a link; a run would find no workflow file in it" in result.errors


def test_a_fifo_is_refused(program: Program, checkout: Path) -> None:
    os.mkfifo(checkout / ".reactorcide/workflows/ci.yaml")
    assert "is not a regular file" in run(program, checkout, "check").errors


def test_control_characters_of_a_file_do_not_reach_the_terminal(program: Program, checkout: Path) -> None:
    (checkout / ".reactorcide/workflows/ci.yaml").write_text(
        'name: "\\e]0;x\\a"\non: push\njobs: {"\\e[2J": {}}\n'
    )
    result = run(program, checkout, "check")

    assert result.code == 1
    assert b"\x1b" not in result.output
    assert b"\x07" not in result.output


def test_the_schema_is_json(program: Program, checkout: Path) -> None:
    result = run(program, checkout, "check", "--schema")

    assert result.code == 0
    assert result.json["title"] == "Reactorcide workflow"


@pytest.mark.parametrize(
    ("files", "jobs"),
    [
        ([], ["hello"]),
        (["pyproject.toml"], ["python"]),
        (["requirements.txt", "Makefile"], ["python"]),
        (["package.json", "go.mod", "Cargo.toml"], ["node", "go", "rust"]),
        (["Makefile"], ["make"]),
    ],
)
def test_init_writes_a_workflow_that_checks(
    program: Program, tmp_path: Path, files: list[str], jobs: list[str]
) -> None:
    root = tmp_path / "new"
    root.mkdir()
    for file in files:
        (root / file).touch()
    result = run(program, root, "init")

    assert result.code == 0, result.errors
    written = root / ".reactorcide/workflows/ci.yaml"
    (definition,) = check_files({".reactorcide/workflows/ci.yaml": written.read_text()}, "new")
    assert definition.problems == ()
    assert [node.name for node in definition.graph.nodes] == jobs
    assert run(program, root, "check").code == 0


def test_init_overwrites_nothing(program: Program, checkout: Path) -> None:
    other = checkout / ".reactorcide/workflows/mine.yml"
    other.write_text(GOOD)
    result = run(program, checkout, "init")

    assert result.code == 1
    assert "mine.yml exists already" in result.errors
    assert sorted(os.listdir(other.parent)) == ["mine.yml"]
