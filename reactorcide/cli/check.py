"""``reactorcide check``: check the workflow files of a checkout."""

import os
import stat
import sys
from pathlib import Path

import click

from reactorcide.cli import render
from reactorcide.domain.errors import InvalidInput
from reactorcide.lib.links import leads_to
from reactorcide.workflows import keys
from reactorcide.workflows.definition import MAX_FILES, Definition
from reactorcide.workflows.definition import check as check_files
from reactorcide.workflows.files import JOBS_DIR, WORKFLOWS_DIR, is_file_of
from reactorcide.workflows.nodes import MAX_FILE_BYTES
from reactorcide.workflows.problems import Problem


@click.command(epilog="Example: reactorcide check --json | jq '.problems[].message'")
@click.argument("path", type=click.Path(exists=True, path_type=Path), default=Path())
@click.option("--json", "as_json", is_flag=True, help="Print workflows and problems as JSON.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of workflow files, for editors.")
def check(path: Path, as_json: bool, schema: bool) -> None:
    """Check the workflow files of a checkout. Exit code 0: no errors.

    Problems are printed as FILE:LINE:COLUMN.

    PATH is a checkout, a directory in it, or one workflow file.
    """
    if schema:
        render.as_json(keys.schema())
        return
    root = checkout_of(path)
    if root is None:
        raise InvalidInput(
            f"there is no {WORKFLOWS_DIR} and no {JOBS_DIR} in {path.resolve()} or above; "
            "'reactorcide init' writes a first workflow"
        )
    files = read_files(root)
    definitions = check_files(files, root.name)
    if path.is_file():
        # The file itself may be a link.
        named = (path.parent.resolve() / path.name).relative_to(root).as_posix()
        if named not in files:
            raise InvalidInput(
                f"{path} is not a workflow file of {root}: those are the .yaml and .yml files in "
                f"{WORKFLOWS_DIR} and {JOBS_DIR}"
            )
        # Any workflow can use a job file.
        if named.startswith(WORKFLOWS_DIR):
            definitions = tuple(definition for definition in definitions if definition.file == named)
    if not definitions:
        raise InvalidInput(f"there is no .yaml or .yml file in {root / WORKFLOWS_DIR} or {root / JOBS_DIR}")
    if as_json:
        _print_json(definitions)
    else:
        _print(definitions, root)
    sys.exit(1 if any(definition.errors for definition in definitions) else 0)


def checkout_of(path: Path) -> Path | None:
    """Return the nearest directory from ``path`` upwards that has workflow or job files; else ``None``."""
    start = path.resolve()
    for directory in (start, *start.parents):
        if (directory / WORKFLOWS_DIR).is_dir() or (directory / JOBS_DIR).is_dir():
            return directory
        if (directory / ".git").exists():
            # Directories above the repository do not belong to it.
            return None
    return None


def read_files(root: Path) -> dict[str, bytes]:
    """Return the workflow and job files of a checkout by their paths in it.

    Raises ``InvalidInput`` if a file cannot be read, or is a link to anything but a regular file of the
    checkout, as a run does.
    """
    files: dict[str, bytes] = {}
    for directory in (WORKFLOWS_DIR, JOBS_DIR):
        if not (root / directory).is_dir():
            continue
        for folder in (root / directory, (root / directory).parent):
            if folder.is_symlink():
                raise InvalidInput(f"{folder} is a link; a run would find no workflow file in it")
        try:
            names = sorted(os.listdir(root / directory))
        except OSError as exc:
            raise InvalidInput(f"{root / directory} cannot be read: {exc.strerror}") from exc
        paths = (f"{directory}/{name}" for name in names)
        matching = [path for path in paths if is_file_of(path, directory)]
        # One file more than allowed is enough for the error.
        for path in matching[: MAX_FILES + 1]:
            files[path] = _read(root, path)
    return files


def _read(root: Path, path: str) -> bytes:
    file = root / path
    try:
        if file.is_symlink():
            target = leads_to(path, os.readlink(file))
            file = root.resolve() / (target or "")
            if target is None or os.path.realpath(file) != os.fspath(file) or not file.is_file():
                raise InvalidInput(f"{root / path} is a link, but not to a regular file of the repository")
        # Opening a FIFO would block.
        if not stat.S_ISREG(file.stat().st_mode):
            raise InvalidInput(f"{file} is not a regular file")
        with file.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise InvalidInput(f"{file} cannot be read: {exc.strerror}") from exc


def _print(definitions: tuple[Definition, ...], root: Path) -> None:
    # Paths relative to the current directory, so that editors and terminals can open them.
    prefix = os.path.relpath(root)
    prefix = "" if prefix == os.curdir else prefix + os.sep
    for problem in _problems(definitions):
        render.line(f"{prefix}{problem}", style="yellow" if problem.is_warning else "red")
    for definition in definitions:
        if not definition.errors:
            count = len(definition.graph.nodes)
            name, jobs = render.printable(definition.name), "job" if count == 1 else "jobs"
            render.line(
                f"{prefix}{definition.file}: {name}, {count} {jobs}: no error", style="green", err=True
            )


def _print_json(definitions: tuple[Definition, ...]) -> None:
    render.as_json(
        {
            "ok": not any(definition.errors for definition in definitions),
            "workflows": [
                {
                    "id": definition.id,
                    "name": definition.name,
                    "file": definition.file,
                    "ok": not definition.errors,
                    "jobs": [
                        {"name": node.name, "needs": list(definition.graph.needs(node))}
                        for node in definition.graph.nodes
                    ],
                }
                for definition in definitions
            ],
            "problems": [
                {
                    "file": problem.place.file,
                    "line": problem.place.line,
                    "column": problem.place.column,
                    "severity": "warning" if problem.is_warning else "error",
                    "message": problem.message,
                }
                for problem in _problems(definitions)
            ],
        }
    )


def _problems(definitions: tuple[Definition, ...]) -> list[Problem]:
    """Return all problems in order; those of a file that several workflows take once."""
    return sorted({problem for definition in definitions for problem in definition.problems})
