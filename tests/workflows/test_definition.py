"""What a good file means."""

import pytest

from reactorcide.domain.events import EventName
from reactorcide.workflows.definition import check
from reactorcide.workflows.events import Event
from reactorcide.workflows.model import Condition, WhenFull
from reactorcide.workflows.problems import WorkflowError
from tests.workflows.support import FILE, PUSH, define, job

FULL = """\
name: CI
id: main-ci
on: [push, pull_request]
paths: {include: ["src/**"], exclude: ["**/*.md"]}
environment: {LANG: C.UTF-8}
vars: {registry: ghcr.io/acme}
concurrency: {group: "ci-${event.branch}", when_full: replace}
jobs:
  publish:
    needs: [test]
    on: {events: [push], branches: [main]}
    environment: {TOKEN: "${secret:pypi:token}"}
    command: ./publish
    artifacts_from: [test]
    capabilities: [builder]
    concurrency: {group: deploy}
  test:
    image: "${vars.registry}/python:${matrix.python}"
    matrix: {python: [3.10, "3.13"], max_parallel: 1}
    services:
      db: {image: "postgres:17", environment: {POSTGRES_PASSWORD: x}, ready: pg_isready, ready_timeout: 2m}
    cache: [{key: [pip, "file:requirements.txt"], paths: [/root/.cache/pip], restore_keys: [pip]}]
    environment: {URL: "postgres://db/${matrix.python}", N: 007, LANG: C}
    command: |
      pytest ${ARGS}
    shell: bash
    timeout: 20m
    retries: 2
    priority: -1
    queue: big
    artifacts: ["**/*.xml"]
    resources: {cpu: {limit: 500m}, memory: {limit: 2Gi}}
    checkout: false
"""


def test_every_key_is_read() -> None:
    definition = define(FULL)
    assert definition.errors == ()
    assert (definition.id, definition.name) == ("main-ci", "CI")

    graph = definition.expand(PUSH, ["src/a.py"])

    assert [node.name for node in graph.nodes] == ["test (3.10)", "test (3.13)", "publish"]
    assert graph.concurrency is not None
    assert (str(graph.concurrency.group), graph.concurrency.when_full) == ("ci-main", WhenFull.REPLACE)
    node = graph.by_name["test (3.10)"]
    test = node.job
    assert node.combination == {"python": "3.10"}
    assert node.max_parallel == 1
    assert str(test.image) == "ghcr.io/acme/python:3.10"
    # As they are written: 3.10 stays 3.10. The job's own variables win.
    written = {name: str(value) for name, value in test.environment.items()}
    assert written == {"LANG": "C", "URL": "postgres://db/3.10", "N": "007"}
    assert test.command == "pytest ${ARGS}\n"
    assert (test.shell, test.timeout_s, test.retries, test.priority, test.queue) == (
        "bash",
        1200,
        2,
        -1,
        "big",
    )
    assert (test.cpu_limit, test.memory_limit_bytes) == (0.5, 2 << 30)
    assert test.artifacts == ("**/*.xml",)
    assert not test.checkout
    database = test.services["db"]
    assert (str(database.image), database.ready, database.ready_timeout_s) == (
        "postgres:17",
        "pg_isready",
        120,
    )
    (cache,) = test.cache
    assert [str(key) for key in cache.key] == ["pip", "file:requirements.txt"]
    assert (cache.paths, [str(key) for key in cache.restore_keys]) == (("/root/.cache/pip",), ["pip"])
    publish = graph.by_name["publish"].job
    assert publish.needs == publish.artifacts_from == ("test",)
    assert publish.needs_builder
    assert publish.concurrency is not None
    assert graph.needs(graph.by_name["publish"]) == ("test (3.10)", "test (3.13)")


def test_alternative_spellings_are_equal() -> None:
    one = define(job("environment: {A: b}\ntimeout: 90\njob_dir: /x\non: push")).graph.nodes
    other = define(job("env: {A: b}\ntimeout_seconds: 90\nworking_dir: /x\ntriggers: push")).graph.nodes
    below = define(job("job: {env: {A: b}, timeout: 90s, job_dir: /x}\non: push")).graph.nodes

    assert one == other == below


@pytest.mark.parametrize("spelling", ["always", "always()"])
def test_condition_can_be_written_as_a_call(spelling: str) -> None:
    (node,) = define(job(f"condition: {spelling}")).graph.nodes

    assert node.job.condition is Condition.ALWAYS


def test_jobs_can_be_a_list() -> None:
    definition = define("name: CI\non: push\njobs:\n- {name: a, run: x}\n- {name: b, run: x, needs: a}\n")

    assert definition.errors == ()
    assert [node.name for node in definition.graph.nodes] == ["a", "b"]


def test_job_file_is_merged_by_key() -> None:
    workflow = """\
name: CI
on: push
jobs:
  unit: {job_file: unit.yaml, timeout: 10, environment: {B: workflow}}
"""
    unit = "name: other\ntriggers: tag\npaths: {include: [x]}\njob: {command: make, timeout: 5, image: a}\n"
    definition = define(workflow, unit=unit + "environment: {A: file, B: file}\n")

    assert definition.errors == ()
    (node,) = definition.expand(PUSH, ["src/a.py"]).nodes
    assert node.name == "unit"
    assert (node.job.command, node.job.timeout_s, str(node.job.image)) == ("make", 10, "a")
    assert {name: str(value) for name, value in node.job.environment.items()} == {
        "A": "file",
        "B": "workflow",
    }
    # The workflow decides when it starts.
    assert node.skipped is None


def test_anchors_and_merge_keys_are_shared_values() -> None:
    definition = define("""\
name: CI
on: push
jobs:
  a: &base {command: make, image: x, timeout: 5}
  b: {<<: *base, timeout: 7}
""")

    assert definition.errors == ()
    assert [node.job.timeout_s for node in definition.graph.nodes] == [5, 7]
    assert [str(node.job.image) for node in definition.graph.nodes] == ["x", "x"]


def test_on_is_a_string_and_no_type_is_guessed() -> None:
    definition = define(job("environment: {A: on, B: 0x10, C: 1_000, D: ~, E: 1e3, F: yes, G: 2024-01-01}"))

    assert definition.errors == ()
    (node,) = definition.graph.nodes
    assert {name: str(value) for name, value in node.job.environment.items()} == {
        "A": "on",
        "B": "0x10",
        "C": "1_000",
        "D": "",
        "E": "1e3",
        "F": "yes",
        "G": "2024-01-01",
    }


@pytest.mark.parametrize(
    ("path", "workflow_id"), [("ci.yaml", "ci"), ("My Build_2.yml", "my-build-2"), ("a.b.yaml", "a-b")]
)
def test_missing_id_comes_from_the_file_name(path: str, workflow_id: str) -> None:
    (definition,) = check({f".reactorcide/workflows/{path}": job("")}, "acme/site")

    assert definition.id == workflow_id


def test_two_workflows_of_one_id_are_an_error() -> None:
    files = {".reactorcide/workflows/ci.yaml": job(""), ".reactorcide/workflows/ci.yml": job("")}
    _, second = check(files, "acme/site")

    assert [problem.message for problem in second.errors] == [
        "the id ci is also that of .reactorcide/workflows/ci.yaml; give one of them another id"
    ]


def test_only_yaml_files_of_the_directory_itself_are_read() -> None:
    nothing = {f".reactorcide/workflows/{path}": "x" for path in ("README.md", "sub/ci.yaml", "ci.yaml.orig")}

    assert check(nothing | {"ci.yaml": job("")}, "acme/site") == ()


def test_invalid_file_does_not_affect_others() -> None:
    bad, good = check({FILE: "name: [", ".reactorcide/workflows/good.yaml": job("")}, "acme/site")

    assert bad.errors
    assert bad.id == "ci"
    assert good.errors == ()


def test_workflow_keys_can_use_vars() -> None:
    definition = define("""\
vars: {main: trunk, sources: src, language: C.UTF-8}
name: CI
on: {events: push, branches: "${vars.main}"}
paths: {include: ["${vars.sources}/**"]}
environment: {LANG: "${vars.language}"}
concurrency: {group: "${vars.main}"}
jobs: {j: {command: make}}
""")

    assert definition.problems == ()
    assert definition.trigger.branches == ("trunk",)
    assert definition.paths.include == ("src/**",)
    assert str(definition.graph.nodes[0].job.environment["LANG"]) == "C.UTF-8"


def test_vars_of_a_start_override_defaults() -> None:
    definition = define("vars: {a: x}\n" + job('image: "${vars.a}:1"\nenvironment: {A: "${vars.a}"}'))

    assert str(definition.expand(PUSH).nodes[0].job.image) == "x:1"
    assert str(definition.expand(PUSH, variables={"a": "y"}).nodes[0].job.image) == "y:1"
    with pytest.raises(WorkflowError, match="the workflow has no 'aa' in vars"):
        definition.expand(PUSH, variables={"aa": "b"})
    # They are checked as what is in the file is, and never read as references.
    with pytest.raises(WorkflowError, match=r"image: '\$\$\{secret:a:b\}:1' is not an image reference"):
        definition.expand(PUSH, variables={"a": "${secret:a:b}"})


def test_invalid_workflow_does_not_expand() -> None:
    with pytest.raises(
        WorkflowError, match=r"ci\.yaml:6:5: 'imag' is not a key of a job; did you mean image\?"
    ):
        define(job("imag: x")).expand(Event(name=EventName.PUSH))


def test_nodes_and_combinations_are_limited() -> None:
    axis = ", ".join(map(str, range(100)))
    many = "name: CI\non: push\njobs:\n" + "".join(
        f"  j{number}: {{command: x, matrix: {{a: [{axis}]}}}}\n" for number in range(6)
    )
    assert [problem.message for problem in define(many).errors] == [
        "with this job there are more than 500 nodes in a run"
    ]
    # More than could ever be listed.
    axes = ", ".join(f"{name}: [{axis}]" for name in "abcdef")
    wide = define(job(f"matrix: {{{axes}}}"))
    assert [problem.message for problem in wide.errors] == [
        "matrix has 1000000000000 combinations; at most 256 are allowed"
    ]


def test_number_of_files_is_limited() -> None:
    (definition,) = check({f".reactorcide/workflows/{i}.yaml": job("") for i in range(101)}, "acme/site")

    assert str(definition.errors[0]) == ".reactorcide/workflows:1:1: there are more than 100 files"
