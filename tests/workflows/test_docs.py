"""The documentation of the format is of this format."""

import re
from pathlib import Path

from reactorcide.workflows.keys import JOB, WORKFLOW
from tests.workflows.support import define, problems

TEXT = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text(encoding="utf-8")
NOT_IN_TABLES = {"description", "cpu_limit", "memory_limit", "run_as"}


def test_documented_examples_pass_the_check() -> None:
    example, *jobs = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    for text in jobs:
        assert define(f"name: CI\non: push\njobs:\n{text}").problems == ()

    assert define(example).problems == ()
    assert [node.name for node in define(example).graph.nodes] == ["test (3.10)", "test (3.13)", "publish"]


def test_documented_errors_are_the_real_ones() -> None:
    wrong = "name: CI\non: push\njobs:\n  j:\n    imagee: x\n    timeout: 20x\n    command: x\n"

    for problem in problems(wrong):
        assert f".reactorcide/workflows/ci.yaml:{problem}" in TEXT


def test_every_key_is_documented() -> None:
    keys = {name for kind in (WORKFLOW, JOB) for key in kind.keys for name in key.names}
    tables = set(re.findall(r"`([a-z_]+)(?:: [^`]*)?`", TEXT))

    assert keys - NOT_IN_TABLES <= tables
