"""``reactorcide init``: write a first workflow file, for the languages of a project."""

import os
from pathlib import Path

import click

from reactorcide.cli import render
from reactorcide.domain.errors import Conflict, InvalidInput
from reactorcide.lib.records import record
from reactorcide.workflows.files import WORKFLOWS_DIR

FILE = f"{WORKFLOWS_DIR}/ci.yaml"


@record
class _Kind:
    """A kind of project: the files that mark it, and a job for it."""

    name: str
    markers: tuple[str, ...]
    image: str
    script: tuple[str, ...]


_KINDS = (
    _Kind(
        "python",
        ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt"),
        "python:3.13",
        (
            "if [ -f requirements.txt ]; then pip install -r requirements.txt; else pip install .; fi",
            "pip install pytest",
            "pytest --junitxml=/job/artifacts/junit.xml",
        ),
    ),
    _Kind(
        "node",
        ("package.json",),
        "node:22",
        ("if [ -f package-lock.json ]; then npm ci; else npm install; fi", "npm test"),
    ),
    _Kind("go", ("go.mod",), "golang:1.25", ("go vet ./...", "go test ./...")),
    _Kind("rust", ("Cargo.toml",), "rust:1", ("cargo test",)),
    _Kind("make", ("Makefile", "makefile", "GNUmakefile"), "gcc:14", ("make",)),
)


@click.command(epilog="Example: reactorcide init && reactorcide check")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path())
def init(directory: Path) -> None:
    """Write a first workflow file for a Python, Node, Go or Rust project, or one with a Makefile."""
    kinds = _kinds_of(directory)
    file = directory / FILE
    others = list((directory / WORKFLOWS_DIR).glob("*.y*ml"))
    if others:
        raise Conflict(f"{others[0]} exists already; check it with 'reactorcide check'")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Never overwrite a file that another process creates at the same time.
        with file.open("x", encoding="utf-8") as stream:
            stream.write(workflow(kinds))
    except OSError as exc:
        raise InvalidInput(f"{file} cannot be written: {os.strerror(exc.errno or 0)}") from exc
    jobs = ", ".join(kind.name for kind in kinds) or "an example"
    render.line(f"Wrote {file} ({jobs}). Change it as you like, then run 'reactorcide check'.")


def _kinds_of(directory: Path) -> list[_Kind]:
    kinds = [kind for kind in _KINDS if any((directory / marker).is_file() for marker in kind.markers)]
    # A Makefile beside another kind of project usually calls its tools.
    return [kind for kind in kinds if kind.name != "make"] or kinds


def workflow(kinds: list[_Kind]) -> str:
    """Return the text of a workflow with a job for each kind; without a kind, with an example job."""
    kinds = kinds or [_Kind("hello", (), "alpine:latest", ('echo "Replace this by what builds and tests."',))]
    lines = ["name: CI", "on: [push, pull_request]", "jobs:"]
    for kind in kinds:
        lines += [f"  {kind.name}:", f'    image: "{kind.image}"', "    command: |"]
        lines += [f"      {line}" for line in kind.script]
        lines += ["    timeout: 30m"]
    return "\n".join(lines) + "\n"
