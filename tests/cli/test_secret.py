"""``reactorcide secret``: named secrets, on a service of these tests' own."""

import uuid
from pathlib import Path

from tests.cli.conftest import Program, Service
from tests.support.runs import repository

WORKFLOW = """
name: CI
on: push
jobs: {a: {environment: {WORD: "${secret:a:word}"}, command: 'test "$WORD" = "open sesame"'}}
"""


def test_a_secret_from_a_file_and_from_standard_input(
    reactorcide: Program, service: Service, tmp_path: Path
) -> None:
    source = repository(service.sources / uuid.uuid4().hex, {"workflows/ci.yaml": WORKFLOW})
    reactorcide.fine("project", "add", "acme/secret", "--git", f"file://{source.path}")
    of_project = ("--project", "acme/secret")
    (tmp_path / "value").write_text("open sesame\n")
    done = reactorcide.fine("secret", "set", "a:word", *of_project, "--value", f"@{tmp_path}/value")
    assert (done.text, done.errors) == (
        "a:word set",
        f"one newline at the end of {tmp_path}/value is removed\n",
    )
    reactorcide.fine("runs", "start", *of_project, "--follow")
    output = reactorcide.fine("secret", "list", *of_project).text
    assert "a:word  all but pull requests  any" in output
    assert "sesame" not in output
    (listed,) = reactorcide.fine("secret", "list", *of_project, "--json").json["secrets"]
    assert [use["workflow"] for use in listed["uses"]] == ["ci"]
    piped = ("secret", "set", "a:word", *of_project, "--branch", "release", "--value", "-")
    assert reactorcide.fine(*piped, input=b"another").errors == ""
    assert reactorcide("runs", "start", *of_project, "--follow").code == 1
    reactorcide.fine("secret", "delete", "a:word", *of_project)
    assert "there is no secret a:word" in reactorcide.refused("secret", "delete", "a:word", *of_project)
    reactorcide.fine("project", "remove", "acme/secret")


def test_secret_value_as_an_argument_is_refused(reactorcide: Program) -> None:
    refused = reactorcide.refused("secret", "set", "a:word", "--value", "open sesame")
    assert "never on the command line" in refused
    assert "cannot be read from /nowhere" in reactorcide.refused(
        "secret", "set", "a:word", "--value", "@/nowhere"
    )
