"""Evaluating workflows in a separate process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import reactorcide

PROGRAM = """
import sys
from pathlib import Path
import reactorcide
from reactorcide.domain.errors import InfrastructureError
from reactorcide.domain.runs import Commit
from reactorcide.runs.evaluate import Evaluator

text = b"name: CI\\non: push\\njobs: {a: {command: x}}\\n"
commit = Commit(files={".reactorcide/workflows/ci.yaml": text}, repository="r")

def evaluate():
    try:
        found = Evaluator().evaluate(commit, None, {"name": "push"}, changed=None, variables={})
        print(len(found.nodes))
    except InfrastructureError as exc:
        print(exc)

evaluate()
path = Path(reactorcide.__file__).parent / "runs" / "evaluation.py"
path.write_text(path.read_text().replace(*sys.argv[1:]))
evaluate()
"""
REPLACED = (
    "workflow files cannot be evaluated: the files of Reactorcide were replaced while it runs; restart it"
)


def evaluated(tmp_path: Path, old: str, new: str) -> list[str]:
    """Evaluate before and after a file of the package is replaced, and return what comes of each."""
    shutil.copytree(Path(reactorcide.__file__).parent, tmp_path / "reactorcide")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, old, new],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_evaluator_that_needs_other_input_is_reported_as_replaced(tmp_path: Path) -> None:
    assert evaluated(tmp_path, 'request["env"]', 'request["renamed"]') == ["1", REPLACED]


def test_evaluator_with_another_answer_is_reported_as_replaced(tmp_path: Path) -> None:
    assert evaluated(tmp_path, '"is_readable":', '"renamed":') == ["1", REPLACED]


def test_compatible_replaced_evaluator_continues(tmp_path: Path) -> None:
    assert evaluated(tmp_path, '"""Return a service', '"""Give back a service') == ["1", "1"]
