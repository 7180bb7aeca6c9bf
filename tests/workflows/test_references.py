"""References: their values, where they are allowed, and that values are not evaluated again."""

import pytest

from reactorcide.domain.events import EventName
from reactorcide.workflows.events import Event
from reactorcide.workflows.references import Reference, Template
from tests.workflows.support import PUSH, define, job, problems


def value(text: str, event: Event = PUSH) -> Template:
    definition = define(job(f"environment: {{A: '{text}'}}"))
    assert definition.errors == ()
    return definition.expand(event).nodes[0].job.environment["A"]


def test_event_values_are_text_and_not_evaluated() -> None:
    event = Event(name=EventName.PUSH, branch="${secret:pypi:token}", message="$")
    template = value("${event.branch} ${event.message}{secret:pypi:token}", event)

    assert template.references == ()
    assert template.parts == ("${secret:pypi:token} ${secret:pypi:token}",)


def test_later_values_stay_references() -> None:
    template = value("$${event.branch}: ${event.branch}/${secret:pypi:token}$")

    assert template.parts == ("${event.branch}: main/", Reference("secret", "pypi:token"), "$")
    assert template.fill(lambda reference: f"<{reference.name}>") == "${event.branch}: main/<pypi:token>$"


def test_job_reads_outputs_of_its_needs() -> None:
    definition = define("""\
name: CI
on: push
jobs:
  build it: {command: x}
  use:
    command: x
    needs: build it
    image: "x:${needs.build it.tag}"
""")

    assert definition.errors == ()
    image = definition.graph.nodes[1].job.image
    assert image is not None
    assert [reference.output for reference in image.references] == [("build it", "tag")]


@pytest.mark.parametrize("command", ["command: echo ${HOME} ${{x}} ${", "command: echo ${vars.x}"])
def test_shell_syntax_in_a_command_is_unchanged(command: str) -> None:
    definition = define(f"name: CI\non: push\njobs:\n  j:\n    {command}\n")

    assert definition.problems == ()
    assert definition.graph.nodes[0].job.command == command.removeprefix("command: ")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ('image: "${vars.x}"', "6:12: '${vars.x}': there is no such name in vars"),
        ('image: "${matrix.x}"', "6:12: '${matrix.x}': the job has no matrix"),
        ('image: "${needs.x}"', "6:12: '${needs.x}' is not like ${needs.JOB.KEY}"),
        ('image: "${needs.x.y}"', "6:12: '${needs.x.y}': 'x' is not in needs"),
        (
            'image: "${secret:a:b}"',
            "6:12: '${secret:a:b}' is not allowed here; "
            "allowed are references to vars, matrix, event, needs, env",
        ),
        ('image: "${{ vars.x }}"', "6:12: a reference has one brace, like ${matrix.python}, not two"),
        (
            'timeout: "${event.number}"',
            "6:14: '${event.number}' is not allowed here; allowed are references to vars, matrix",
        ),
        ('environment: {A: "${env:1}"}', "6:22: '${env:1}': '1' is not a variable name"),
        (
            'environment: {A: "${secret:a b:c}"}',
            "6:22: '${secret:a b:c}' is not like ${secret:path:key}, of letters, digits, '/', '_' and '-'",
        ),
        ('environment: {A: "${"}', "6:22: a ${ has no closing brace; write $${ for a ${ of your own"),
    ],
)
def test_reference_errors_are_reported(keys: str, expected: str) -> None:
    assert problems(job(keys)) == [expected]


def test_an_output_of_a_matrix_has_no_single_value() -> None:
    text = """\
name: CI
on: push
jobs:
  a: {command: x, matrix: {n: [1]}}
  b: {command: x, needs: a, environment: {V: "${needs.a.v}"}}
"""
    assert problems(text) == ["5:46: '${needs.a.v}': 'a' has a matrix, so its outputs have no single value"]
