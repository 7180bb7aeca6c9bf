"""The time to evaluate a workflow, before its first job can start."""

from benchmarks.figures import Figure, alone, seconds
from reactorcide.domain.events import EventName
from reactorcide.workflows.definition import check
from reactorcide.workflows.events import Event

_FILE = ".reactorcide/workflows/ci.yaml"
_SIDE = 16
_WORKFLOW = f"""\
name: CI
on: [push, pull_request]
environment: {{LANG: C.UTF-8}}
concurrency: {{group: "ci-${{event.branch}}"}}
jobs:
  test:
    image: "python:3.${{matrix.python}}"
    matrix: {{python: {list(range(_SIDE))}, shard: {list(range(_SIDE))}}}
    services:
      db: {{image: "postgres:17", environment: {{POSTGRES_PASSWORD: x}}, ready: pg_isready}}
    cache: [{{key: [pip, "${{matrix.python}}", "file:requirements.txt"], paths: [/root/.cache/pip]}}]
    environment: {{SHARD: "${{matrix.shard}}", BRANCH: "${{event.branch}}"}}
    command: |
      pip install -r requirements.txt
      pytest --junitxml=/job/artifacts/junit.xml
    timeout: 20m
    artifacts: ["**/*.xml"]
  publish: {{needs: [test], on: {{events: [push], branches: [main]}}, command: ./publish}}
"""


def evaluation(*, quick: bool) -> Figure:
    """Measure from the text of a file to the graph of a run with a matrix of 256 combinations."""

    def evaluate() -> None:
        (definition,) = check({_FILE: _WORKFLOW}, "acme/site")
        graph = definition.expand(Event(name=EventName.PUSH, branch="main"), ["src/a.py"])
        if len(graph.nodes) != _SIDE**2 + 1:
            raise RuntimeError(f"the graph has {len(graph.nodes)} nodes; the workflow is wrong")

    evaluate()
    times = [1000 * seconds(evaluate) for _ in range(5 if quick else 25)]
    return alone("workflow with 256 combinations", times, unit="ms", mark=150)
