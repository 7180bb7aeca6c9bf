"""Which events start a workflow or a job, and why others do not."""

import pytest

from reactorcide.domain.events import EventName
from reactorcide.workflows.events import Event
from tests.workflows.support import define, job


def refusal(on: str, event: Event, changed: list[str] | None = None, paths: str = "") -> str | None:
    definition = define(f"name: CI\non: {on}\n{paths}\njobs: {{j: {{command: x}}}}\n")
    assert definition.errors == ()
    return definition.refusal(event, changed)


@pytest.mark.parametrize(
    ("on", "event", "expected"),
    [
        ("push", Event(name=EventName.PUSH), None),
        ("push", Event(name=EventName.TAG_CREATED), "it starts on push, not on tag_created"),
        ("pull_request", Event(name=EventName.PULL_REQUEST_OPENED), None),
        ("pull_request", Event(name=EventName.PULL_REQUEST_UPDATED), None),
        (
            "pull_request",
            Event(name=EventName.PULL_REQUEST_MERGED),
            "it starts on pull_request_opened, pull_request_updated, not on pull_request_merged",
        ),
        ("{events: push, branches: main}", Event(name=EventName.PUSH, branch="main"), None),
        (
            "{events: push, branches: [main, release/*]}",
            Event(name=EventName.PUSH, branch="release/1/2"),
            "the branch release/1/2 matches none of main, release/*",
        ),
        ("{events: push, branches: ['**']}", Event(name=EventName.PUSH, branch="a/b/c"), None),
        # Of a pull request the base counts.
        (
            "{events: pull_request, branches: main}",
            Event(name=EventName.PULL_REQUEST_OPENED, branch="main", base_branch="dev"),
            "the base branch dev matches none of main",
        ),
        # Of a tag its name, and where there are tags they alone.
        ("{events: tag, branches: v*}", Event(name=EventName.TAG_CREATED, tag="v1"), None),
        (
            "{events: [push, tag], branches: v*, tags: r*}",
            Event(name=EventName.TAG_CREATED, tag="v1"),
            "the tag v1 matches none of r*",
        ),
        ("{events: [push, tag], branches: v*, tags: r*}", Event(name=EventName.PUSH, branch="v1"), None),
        # Whoever starts it by hand has named it.
        ("{events: push, branches: main}", Event(name=EventName.MANUAL, branch="dev"), None),
    ],
)
def test_events_and_branches(on: str, event: Event, expected: str | None) -> None:
    assert refusal(on, event) == expected


@pytest.mark.parametrize(
    ("changed", "starts"),
    [
        (["src/a.py"], True),
        (["README.md"], False),
        (["src/README.md"], False),
        (["src/README.md", "src/deep/er/a.py"], True),
        ([], False),
        (None, True),
    ],
)
def test_paths(changed: list[str] | None, starts: bool) -> None:
    reason = refusal(
        "push", Event(name=EventName.PUSH), changed, 'paths: {include: ["src/**"], exclude: ["**/*.md"]}'
    )

    assert (reason is None) == starts


def test_patterns_for_the_root_match_only_there() -> None:
    paths = 'paths: {exclude: ["*.md"]}'

    assert refusal("push", Event(name=EventName.PUSH), ["a.md"], paths) == (
        "none of the 1 changed files is one that its paths name"
    )
    assert refusal("push", Event(name=EventName.PUSH), ["docs/a.md"], paths) is None


def test_a_job_narrows_the_events_and_files_and_is_skipped_with_the_reason() -> None:
    definition = define(job('on: {branches: main}\npaths: {include: ["src/**"]}'))

    def skipped(branch: str, changed: list[str]) -> str | None:
        return definition.expand(Event(name=EventName.PUSH, branch=branch), changed).nodes[0].skipped

    assert skipped("main", ["src/a"]) is None
    assert skipped("dev", ["src/a"]) == "the branch dev matches none of main"
    assert skipped("main", ["a"]) == "none of the 1 changed files is one that its paths name"


def test_each_combination_of_a_matrix_has_its_own_events() -> None:
    definition = define(job('matrix: {branch: [dev, main]}\non: {branches: "${matrix.branch}"}'))

    nodes = definition.expand(Event(name=EventName.PUSH, branch="main")).nodes
    assert [node.skipped for node in nodes] == ["the branch main matches none of dev", None]
