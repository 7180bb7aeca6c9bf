"""Evaluating workflows in a separate process."""

import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import reactorcide
from reactorcide.domain.errors import Busy
from reactorcide.domain.runs import Commit
from reactorcide.runs import evaluation
from reactorcide.runs.evaluate import Evaluator

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
        found = Evaluator().evaluate(commit, None, {"name": "push"}, user_id="u", changed=None, variables={})
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


class Slow(Evaluator):
    """Waits in the evaluation of a repository named slow until it may go on."""

    def __init__(self) -> None:
        super().__init__(timeout_s=0.5)
        self.evaluating, self.goes_on = threading.Semaphore(0), threading.Event()

    def of(self, user_id: str, repository: str) -> str:
        """Evaluate a workflow for a user, and return its id."""
        files = {".reactorcide/workflows/ci.yaml": b"name: CI\non: push\njobs: {a: {command: x}}\n"}
        commit = Commit(files=files, repository=repository)
        found = self.evaluate(commit, None, {"name": "push"}, user_id=user_id, changed=None, variables={})
        return found.workflow_id

    def _run(self, request: str) -> dict[str, Any]:
        if json.loads(request)["repository"] == "slow":
            self.evaluating.release()
            self.goes_on.wait(20)
        return evaluation.evaluate(json.loads(request))


def test_slow_evaluations_of_one_user_leave_a_slot_to_other_users() -> None:
    evaluator = Slow()
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(evaluator.of, "mallory", "slow") for _ in range(2)]
        try:
            assert all(evaluator.evaluating.acquire(timeout=10) for _ in slow)
            with pytest.raises(Busy):
                evaluator.of("mallory", "r")
            assert evaluator.of("ann", "r") == "ci"
        finally:
            evaluator.goes_on.set()
    assert [future.result() for future in slow] == ["ci", "ci"]
    assert evaluator.of("mallory", "r") == "ci"
