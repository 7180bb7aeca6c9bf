"""Files of the original Reactorcide run unchanged, or an error names the line of what cannot run."""

from pathlib import Path

import pytest

from reactorcide.domain.events import EventName
from reactorcide.workflows.definition import Definition, check
from reactorcide.workflows.events import Event
from reactorcide.workflows.model import Condition

HERE = Path(__file__).parent


def checked(directory: str) -> tuple[Definition, ...]:
    root = HERE / directory
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.y*ml"))}
    return check(files, "acme/site")


def test_workflows_with_job_files_run_unchanged() -> None:
    pull_request, release = checked("originals")

    assert [str(problem) for problem in pull_request.problems] == [
        ".reactorcide/jobs/messages.yaml:18:3: warning: raw_command means nothing here: "
        "every command runs as it is written, and has the source in code_dir; one that clones it there needs "
        "checkout: false"
    ]
    assert release.problems == ()
    opened = Event(name=EventName.PULL_REQUEST_OPENED, branch="fix", base_branch="main")
    assert pull_request.id == "acme-pr"
    assert pull_request.refusal(opened, None) is None
    graph = pull_request.expand(opened)
    assert [(node.name, node.job.needs, node.skipped) for node in graph.nodes] == [
        ("messages", (), None),
        ("unit", ("messages",), None),
        ("web", ("messages",), None),
    ]
    assert {name: str(value) for name, value in graph.by_name["web"].job.environment.items()} == {
        "CI": "true",
        "SUITE": "web",
    }
    assert graph.by_name["messages"].job.disable_run_local
    assert release.refusal(Event(name=EventName.TAG_CREATED, tag="v1.2"), None) is None
    assert release.refusal(Event(name=EventName.TAG_CREATED, tag="x1.2"), None) == (
        "the tag x1.2 matches none of v*"
    )
    assert [node.job.needs_builder for node in release.graph.nodes] == [False, True, False]


@pytest.mark.parametrize(
    ("event", "changed", "running"),
    [
        (Event(name=EventName.PUSH, branch="main"), None, ["build"]),
        (Event(name=EventName.PUSH, branch="dev"), None, []),
        (Event(name=EventName.PULL_REQUEST_UPDATED, base_branch="release/1"), ["src/a.py"], ["check"]),
        (Event(name=EventName.PULL_REQUEST_UPDATED, base_branch="release/1"), None, ["check"]),
        (Event(name=EventName.PULL_REQUEST_UPDATED, base_branch="release/1"), ["src/a.md"], []),
        (Event(name=EventName.PULL_REQUEST_UPDATED, base_branch="release/1/x"), ["src/a.py"], []),
        (Event(name=EventName.TAG_CREATED, tag="v1"), None, ["roll out"]),
        (Event(name=EventName.MANUAL, branch="main"), None, ["by hand"]),
        (Event(name=EventName.SCHEDULE, branch="main"), None, []),
    ],
)
def test_job_files_alone_are_one_workflow_with_triggers_of_their_own(
    event: Event, changed: list[str] | None, running: list[str]
) -> None:
    (definition,) = checked("jobs_only")

    assert definition.problems == ()
    assert (definition.id, definition.name) == ("site", "acme/site")
    assert [node.name for node in definition.expand(event, changed).nodes if node.skipped is None] == running
    assert (definition.refusal(event, changed) is None) == bool(running)


def problems_of(name: str) -> tuple[Definition, list[str]]:
    text = (HERE / "originals" / "single" / f"{name}.yaml").read_text()
    (definition,) = check({f".reactorcide/jobs/{name}.yaml": text}, "acme/site")
    return definition, [str(problem).partition(".yaml:")[2] for problem in definition.problems]


def test_a_flat_job_file_runs_unchanged() -> None:
    definition, problems = problems_of("hello")

    assert problems == []
    (node,) = definition.graph.nodes
    assert {name: str(value) for name, value in node.job.environment.items()} == {
        "WHO": "world",
        "TOKEN": "${secret:acme/test:token}",
        "REGISTRY_USER": "${env:REGISTRY_USER}",
    }


def test_one_job_for_each_value() -> None:
    definition, problems = problems_of("fan-out")

    assert problems == [
        "6:1: warning: worker_class means nothing here: any worker may take it",
        "7:1: warning: image_pull_secrets means nothing here: logins are the operator's",
        "8:1: command_prefix is not a key of a job file; write shell: bash",
    ]
    assert [node.name for node in definition.graph.nodes] == ["fan-out (unit)", "fan-out (integration)"]
    assert [str(node.job.environment["SUITE"]) for node in definition.graph.nodes] == ["unit", "integration"]
    assert {node.job.condition for node in definition.graph.nodes} == {Condition.ALWAYS}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "docker",
            [
                "4:3: capabilities: docker is not available: a job never gets the engine's socket; "
                "to build images, use builder",
                "6:3: warning: run_as is ignored: a job runs as the user of its image",
            ],
        ),
        (
            "mac",
            [
                "3:1: warning: source means nothing here: a job gets the source of its run; without one: "
                "checkout: false",
                "5:1: warning: characteristics means nothing here: any worker may take it",
                "10:5: warning: request means nothing here: only limits count",
            ],
        ),
        (
            "steps",
            [
                "1:1: the job 'All features' needs the key command, with a script",
                "2:1: warning: source means nothing here: a job gets the source of its run; without one: "
                "checkout: false",
                "5:1: container is not a key of a job file; write image",
                "8:13: '${BUILD_ID:-none}' is not a reference (they begin with vars., matrix., event., "
                "needs., secret:, env:); write $${ for a ${ of your own",
                "9:1: commands is not a key of a job file; write one command, of several lines",
                "12:1: outputs is not a key of a job file; a job writes KEY=VALUE lines to the file "
                "$REACTORCIDE_OUTPUT",
                "14:1: 'metadata' is not a key of a job file",
            ],
        ),
    ],
)
def test_keys_that_cannot_run_are_errors_with_their_line(name: str, expected: list[str]) -> None:
    assert problems_of(name)[1] == expected
