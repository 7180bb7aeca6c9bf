"""Any file is read in bounded time and space, and every run of it ends."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reactorcide.domain.events import EventName
from reactorcide.domain.runs import NodeState, RunStatus
from reactorcide.workflows import problems as workflow_problems
from reactorcide.workflows.definition import Definition, check
from reactorcide.workflows.events import Event
from reactorcide.workflows.expand import MAX_NODES
from reactorcide.workflows.graph import Graph
from reactorcide.workflows.keys import ENTRY, WORKFLOW
from reactorcide.workflows.nodes import MAX_EXPANDED_CHARS, MAX_FILE_BYTES, MAX_VALUES
from reactorcide.workflows.problems import MAX_PROBLEMS, WorkflowError
from reactorcide.workflows.resolve import cancel, resolve, run_status
from tests.workflows.support import FILE, define, job
from tests.workflows.test_definition import FULL
from tests.workflows.test_errors import EVERYTHING_WRONG

FINAL_OF_JOBS = (NodeState.COMPLETED, NodeState.FAILED, NodeState.CANCELLED)

# A shared machine may be slow for seconds; what is bounded here is bounded by other means.
slow_is_fine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

names = st.sampled_from(["a", "b", "c", "d", "a b", "nope", "", "${matrix.n}"])
words = st.sampled_from(
    [
        *(
            "push",
            "tag",
            "pull_request",
            "always",
            "any_failed",
            "no_failure",
            "bash",
            "queue",
            "builder",
            "docker",
        ),
        *(
            "1",
            "0",
            "-1",
            "1.5",
            "true",
            "no",
            "~",
            "90s",
            "2h",
            "512m",
            "2Gi",
            "/x",
            "/../x",
            "src/**",
            "a**",
            "[",
            "",
        ),
        *(
            "${vars.v}",
            "${matrix.n}",
            "${event.branch}",
            "${needs.a.k}",
            "${secret:a:b}",
            "${env:X}",
            "$${",
            "${",
            "$",
        ),
        *("a.yaml", ".reactorcide/jobs/a.yaml", "../a.yaml", "x" * 300, "\0", "\ud800", "é", "\u2028"),
    ]
)
leaves = st.one_of(words, names, st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=20))
KEYS = sorted({name for kind in (ENTRY, WORKFLOW) for key in kind.keys for name in key.names})
KEYS += [
    "include",
    "exclude",
    "events",
    "branches",
    "tags",
    "group",
    "limit",
    "cpu",
    "key",
    "user",
    "n",
    "steps",
    "<<",
]
values: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), names), inner, max_size=5),
    ),
    max_leaves=12,
)
jobs_of_any_kind = st.dictionaries(st.sampled_from(KEYS), values, max_size=6)
files_of_any_kind = st.fixed_dictionaries(
    {},
    optional={
        "name": leaves,
        "on": values,
        "jobs": st.one_of(values, st.dictionaries(names, st.one_of(values, jobs_of_any_kind), max_size=4)),
        "vars": values,
        "environment": values,
        "concurrency": values,
        "paths": values,
        "id": leaves,
    },
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A good or a bad file with some of its characters changed."""
    text = draw(st.sampled_from([FULL, EVERYTHING_WRONG, job("matrix: {n: [1, 2]}\nfor_each: [x]")]))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        end = draw(st.integers(at, min(len(text), at + 12)))
        text = (
            text[:at]
            + draw(st.one_of(st.text(max_size=4), st.sampled_from(["&a ", "*a", "- ", "{", "}", ": "])))
            + text[end:]
        )
    return text


texts = st.one_of(
    st.text(max_size=200),
    st.text(alphabet="ab:-[]{}&*!|>'\"%@`#,?<\\ \n\t$", max_size=200),
    st.binary(max_size=200),
    mutated(),
    files_of_any_kind.map(json.dumps),
)


def assert_is_sound(definition: Definition) -> None:
    """Everything that is wrong has a place and a sentence, and what is good expands."""
    for problem in definition.problems:
        assert problem.place.line >= 1
        assert problem.place.column >= 1
        assert problem.message
    for name in EventName:
        event = Event(name=name, branch="${main}", message="x" * 1000)
        if definition.errors:
            with pytest.raises(WorkflowError, match=r":\d+:\d+: "):
                definition.expand(event, ["src/a.py"])
            continue
        graph = definition.expand(event, ["src/a.py"])
        assert len(graph.nodes) <= MAX_NODES
        earlier: set[str] = set()
        for node in graph.nodes:
            # Each after those that it needs: there is no cycle.
            assert set(graph.needs(node)) <= earlier
            assert node.name not in earlier
            earlier.add(node.name)


@slow_is_fine
@given(texts, texts)
def test_any_text_is_a_workflow_or_errors_with_a_place(text: str | bytes, job_file: str | bytes) -> None:
    (definition,) = check({FILE: text, ".reactorcide/jobs/a.yaml": job_file}, "acme/site")
    assert_is_sound(definition)
    for definition in check({".reactorcide/jobs/a.yaml": text, ".reactorcide/jobs/b.yaml": job_file}, "x"):
        assert_is_sound(definition)


@slow_is_fine
@given(files_of_any_kind, jobs_of_any_kind)
def test_any_shape_is_a_workflow_or_errors_with_a_place(
    workflow: dict[str, Any], of_file: dict[str, Any]
) -> None:
    (definition,) = check(
        {FILE: json.dumps(workflow), ".reactorcide/jobs/a.yaml": json.dumps(of_file)}, "acme/site"
    )
    assert_is_sound(definition)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """The graph of a workflow that checks."""
    count = draw(st.integers(1, 7))
    jobs: dict[str, dict[str, Any]] = {}
    for number in range(count):
        keys: dict[str, Any] = {"command": "x", "needs": []}
        if number:
            keys["needs"] = draw(
                st.lists(st.sampled_from([f"j{n}" for n in range(number)]), unique=True, max_size=3)
            )
        conditions = ["all_success", "no_failure", "always"] + ["any_failed"] * bool(keys["needs"])
        keys["condition"] = draw(st.sampled_from(conditions))
        keys["allow_failure"] = draw(st.booleans())
        if draw(st.booleans()):
            keys["matrix"] = {"n": [1, 2, 3], "max_parallel": draw(st.integers(1, 3))}
        elif draw(st.booleans()) and draw(st.booleans()):
            keys["on"] = {"branches": ["dev"]}
        alone = [need for need in keys["needs"] if "matrix" not in jobs[need]]
        if bool(alone) and draw(st.booleans()):
            keys["environment"] = {"V": f"${{needs.{alone[0]}.v}}"}
        jobs[f"j{number}"] = keys
    # Not in the order of their needs.
    shuffled = {name: jobs[name] for name in draw(st.permutations(list(jobs)))}
    definition = define(json.dumps({"name": "CI", "on": "push", "jobs": shuffled}))
    assert definition.errors == ()
    return definition.expand(Event(name=EventName.PUSH, branch="main"))


@slow_is_fine
@given(graphs(), st.randoms(use_true_random=False), st.booleans())
def test_every_node_ends_for_every_outcome_of_its_needs(
    graph: Graph, outcomes: random.Random, is_cancelled: bool
) -> None:
    states: dict[str, NodeState] = {}
    cancelled_after = outcomes.randrange(8) if is_cancelled else None
    for step in range(10 * len(graph.nodes) + 10):
        if step == cancelled_after:
            states |= dict.fromkeys(cancel(graph, states), NodeState.CANCELLED)
        result = resolve(graph, states)
        # One step is enough: with its changes applied, the next one is empty.
        states |= {name: change.state for name, change in result.changes.items()}
        states |= dict.fromkeys(result.ready, NodeState.ACTIVE)
        again = resolve(graph, states)
        assert (again.ready, again.changes) == ((), {})
        active = [name for name, state in states.items() if state is NodeState.ACTIVE]
        if not active:
            break
        for node in graph.nodes:
            running = [name for name in graph.by_job[node.job_name] if states.get(name) is NodeState.ACTIVE]
            assert node.max_parallel is None or len(running) <= node.max_parallel
        ended = outcomes.choice(active)
        states[ended] = outcomes.choice(FINAL_OF_JOBS)

    assert set(states) == {node.name for node in graph.nodes}
    assert all(state.is_final for state in states.values())
    assert run_status(graph, states) not in (RunStatus.RUNNING, RunStatus.WAITING)


ALIASES = "&a0 [x, x]\n" + "".join(f"&a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
LONG_NAMES = [f"a-job-with-a-rather-long-name-{i}" for i in range(1000, 1200)]
MISSPELT = (
    "name: CI\non: push\njobs:\n"
    + "".join(f"  {name}: {{command: x}}\n" for name in LONG_NAMES)
    + f"  last: {{command: x, needs: [{', '.join(name.replace('name', 'naem') for name in LONG_NAMES)}]}}\n"
    + f"  keys: {{command: x, {', '.join(f'condtion{i}: x' for i in range(3600))}}}\n"
)
BOMBS = {
    "misspelt names": MISSPELT,
    "aliases of aliases": "a0: &a0 [x, x]\n"
    + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)),
    "merges of merges": "a0: &a0 {k: x}\n"
    + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40)),
    "a long text, often": "a: &a " + "x" * 200_000 + "\nb: [" + "*a," * 1000 + "]\n",
    "many values": "[" + "a," * 100_000 + "]",
    "many keys": "".join(f"k{i}: v\n" for i in range(20_000)),
    "lists in lists": "[" * 200_000,
    "mappings in mappings": "{a: " * 60_000,
    "dashes": "- " * 100_000,
    "keys of keys": "? " * 100_000,
    "a key without an end": "a" * 250_000,
    "anchors": "".join(f"- &a{i} x\n" for i in range(20_000)),
    "documents": "---\n" * 60_000,
    "spaces": " " * 250_000,
    "lines": "\n" * 250_000,
    "comments": "# x\n" * 60_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_exponential_growth_is_refused(bomb: str) -> None:
    assert len(BOMBS[bomb]) <= MAX_FILE_BYTES
    started = time.process_time()
    definition = define(BOMBS[bomb])

    assert definition.errors
    assert len(definition.problems) <= 101
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "text",
    [
        job("environment: *a39\n"),
        job("services: {db: {image: x, environment: *a39}}\n"),
        job("matrix: {n: *a39}\n"),
    ],
)
def test_aliases_of_aliases_are_refused_everywhere(text: str) -> None:
    errors = define("aliases: [" + ALIASES.replace("\n", ", ") + "]\n" + text).errors

    assert [problem.message for problem in errors] == [
        "with its anchors expanded the file has more than 10000 keys and values, or more than 1 MiB"
    ]


def test_suggestions_are_computed_only_for_shown_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[str] = []

    def look(text: str, *_: object, **__: object) -> list[str]:
        looked_for.append(text)
        return []

    monkeypatch.setattr(workflow_problems, "get_close_matches", look)
    assert define(MISSPELT).errors

    assert len(looked_for) == MAX_PROBLEMS


def test_file_at_the_size_limit_is_read() -> None:
    text = job(
        "description: "
        + "x" * 60_000
        + "\nenvironment:\n"
        + "".join(f"  V{i}: {'y' * 150}\n" for i in range(900))
    )
    assert MAX_FILE_BYTES * 0.75 < len(text) < MAX_FILE_BYTES

    assert define(text).errors == ()


def test_references_cannot_make_a_small_file_a_large_run() -> None:
    variables = ", ".join(f"V{i}: '{'${vars.a}' * 50}'" for i in range(100))
    axis = list(range(256))
    definition = define(
        f"vars: {{a: {'x' * 30_000}}}\n" + job(f"matrix: {{n: {axis}}}\nenvironment: {{{variables}}}")
    )

    assert "with the references replaced up to here the workflow is larger than 8 MiB" in {
        problem.message for problem in definition.errors
    }


def _needs_of_all(count: int) -> str:
    jobs = "".join(
        f"  j{i}: {{command: x, needs: [{', '.join(f'j{n}' for n in range(max(0, i - 9), i))}]}}\n"
        for i in range(count)
    )
    return "name: CI\non: push\njobs:\n" + jobs


SCALED: dict[str, Callable[[int], str]] = {
    "jobs with needs": lambda n: _needs_of_all(60 * n),
    "combinations": lambda n: job(f"image: 'x:${{matrix.n}}'\nmatrix: {{n: {list(range(32 * n))}}}"),
    "variables": lambda n: job(
        "environment:\n" + "".join(f"  V{i}: '${{event.branch}}'\n" for i in range(120 * n))
    ),
    "references in a text": lambda n: job("environment: {A: '" + "${event.sha}" * 400 * n + "'}"),
    "unclosed references": lambda n: job("environment: {A: '" + "${" * 2000 * n + "'}"),
    "unknown needs": lambda n: job("needs: [" + ", ".join(f"k{i}" for i in range(60 * n)) + "]"),
    "unknown keys": lambda n: job("".join(f"k{i}: x\n" for i in range(500 * n))),
    "stars in globs": lambda n: job("artifacts: ['" + "*a" * 60 * n + "']"),
    "brackets in globs": lambda n: job("artifacts: ['" + "[" * 120 * n + "']"),
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SCALED)
def test_the_cost_is_linear(shape: str) -> None:
    def cost_s(size: int) -> float:
        text = SCALED[shape](size)
        # Of this process alone: others on the machine do not count.
        started = time.process_time()
        define(text)
        return time.process_time() - started

    small, large = (min(cost_s(size) for _ in range(2)) for size in (1, 8))
    # Eight times as much would be linear; squared it would be 64. What is very quick is not measured well.
    assert large < 24 * max(small, 0.005)


def test_limits_allow_realistic_files() -> None:
    assert (MAX_FILE_BYTES, MAX_VALUES, MAX_EXPANDED_CHARS) == (256 << 10, 10_000, 1 << 20)
