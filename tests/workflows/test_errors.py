"""The errors of a file: each with its place and a suggestion, and all of them at once."""

import pytest

from reactorcide.workflows.definition import check
from tests.workflows.support import define, job, problems

EVERYTHING_WRONG = """\
name: CI
on: {events: [push, pull_requests], branch: [main]}
vars: {registry: ghcr.io/acme}
concurrency: {group: "ci-${event.brnch}", when_full: queu}
jobs:
  test:
    imagee: "python:3"
    command: make
    timeout: 20x
    retries: 11
    allow_failure: yes
    env: {A: "${vars.regisry}"}
    command: make again
    needs: [bild]
  build:
    needs: [test, publish]
    command: make
  publish:
    needs: build
    condition: any_fail
"""


def test_all_errors_are_reported_with_place_and_suggestion() -> None:
    assert problems(EVERYTHING_WRONG) == [
        "2:21: events: 'pull_requests' is none of push, tag_created, pull_request_opened, "
        "pull_request_updated, "
        "pull_request_closed, pull_request_merged, schedule, manual, pull_request, tag; did "
        "you mean pull_request?",
        "2:37: 'branch' is not a key of on; did you mean branches?",
        "4:22: '${event.brnch}': an event has no 'brnch'; did you mean branch?",
        "4:54: when_full: 'queu' is none of queue, replace, cancel; did you mean queue?",
        "7:5: 'imagee' is not a key of a job; did you mean image?",
        "9:14: timeout: '20x' is not a duration from 1 to 604800 seconds; write seconds, or 90s, 20m, 2h",
        "10:14: retries: '11' is not a whole number from 0 to 10",
        "11:20: allow_failure: 'yes' is neither true nor false",
        "12:14: '${vars.regisry}': there is no such name in vars; did you mean registry?",
        "13:5: the key 'command' is given twice, first in line 8",
        "14:13: needs: there is no job 'bild'; did you mean build?",
        "16:12: these jobs wait for each other: build → publish → build",
        "18:3: the job 'publish' needs the key command, with a script",
        "20:16: condition: 'any_fail' is none of all_success, no_failure, any_failed, always; "
        "did you mean any_failed?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1:1: a workflow file is a mapping, with name, on and jobs"]),
        ("- a\n", ["1:1: a workflow file is a mapping, with name, on and jobs"]),
        (
            "name: CI\n\ton: push\n",
            ["2:1: this is not valid YAML: found character '\\t' that cannot start any token"],
        ),
        (b"name: CI\n# gr\xfc\xdf\n", ["2:5: the file is not UTF-8 from here on; save it as UTF-8"]),
        ("a: 1\n---\nb: 2\n", ["2:1: a second document begins here; write one workflow a file"]),
        ("[a]: 1\n", ["1:1: a key has to be a text"]),
        ("a: *x\n", ["1:4: there is no anchor &x above"]),
        ("a: &x [*x]\n", ["1:8: *x stands inside of its own anchor"]),
        ("name: a\0b\n", ["1:8: the character U+0000 is not allowed in YAML"]),
        ('name: "\\UFFFFFFFF"\n', ["1:1: this cannot be read as YAML; check its quotes and escapes"]),
        ("[" * 40, ["1:33: lists and mappings are nested more than 32 deep"]),
        ("x" * 300_000, ["1:1: the file is larger than 256 KiB"]),
    ],
)
def test_unreadable_file_is_one_error(text: str | bytes, expected: list[str]) -> None:
    assert problems(text) == expected


def test_custom_yaml_tags_are_refused() -> None:
    assert problems(job("retries: !!int 3\ndescription: !secret x")) == [
        "7:18: the tag '!secret' means nothing here; leave it out"
    ]


def test_each_cycle_is_reported() -> None:
    text = "name: CI\non: push\njobs:\n  a: {command: x, needs: b}\n  b: {command: x, needs: a}\n"
    problems = [str(problem) for problem in define(text + "  c: {command: x, needs: c}\n").errors]
    assert [problem.partition("other: ")[2] for problem in problems] == ["a → b → a", "c → c"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("steps: [a]", "6:5: steps is not a key of a job; write one command for all steps"),
        ("runs-on: x", "6:5: runs-on is not a key of a job; write image, and queue where it matters"),
        ("Image: x", "6:5: 'Image' is not a key of a job; did you mean image?"),
        ("image: Alpine", "6:12: image: 'Alpine' is not an image reference, like alpine:latest"),
        ("image: [x]", "6:12: image takes a single value, not a list"),
        ("run: x", "6:5: run and command mean the same; give one of them"),
        ("shell: zsh", "6:12: shell: 'zsh' is none of sh, bash; did you mean sh?"),
        ("environment: {A B: x}", "6:19: environment: 'A B' is not a name for a variable"),
        ("environment: [A=x]", "6:18: environment takes a mapping, not a list"),
        ("needs: [j]", "6:12: these jobs wait for each other: j → j"),
        ("condition: any_failed", "6:16: the job would never run: any_failed, and it needs no job"),
        (
            "timeout: 8d",
            "6:14: timeout: '8d' is not a duration from 1 to 604800 seconds; write seconds, or 90s, 20m, 2h",
        ),
        ("priority: 1.5", "6:15: priority: '1.5' is not a whole number from -2147483648 to 2147483647"),
        ('retries: "3"', "6:14: retries: '3' is a text, because of its quotes; leave them out"),
        ("queue: a b", "6:12: queue: 'a b' is not a queue's name: letters, digits, '.', '_' and '-'"),
        (
            "artifacts: [/x]",
            "6:17: artifacts: the glob '/x' begins with a slash; globs are matched from the top, without one",
        ),
        (
            "artifacts: ['a**']",
            "6:17: artifacts: the glob 'a**' has a ** that does not stand alone between slashes",
        ),
        (
            "artifacts: ['a[b']",
            "6:17: artifacts: the glob 'a[b' has a [ that is not closed; write [[] for a [ itself",
        ),
        ("artifacts_from: [x]", "6:21: artifacts_from: 'x' is not in needs"),
        (
            "code_dir: a",
            "6:15: code_dir: 'a' is not an absolute path in the container, without '..', "
            "apart from / and /job/artifacts",
        ),
        (
            "code_dir: /a/../b",
            "6:15: code_dir: '/a/../b' is not an absolute path in the container, without '..', "
            "apart from / and /job/artifacts",
        ),
        (
            "resources: {cpu: {limit: 0}}",
            "6:30: limit: '0' is not a number of processors from 0.01 to 1024, like 2, 0.5 or 500m",
        ),
        (
            "resources: {memory: {limit: 1m}}",
            "6:33: limit: '1m' is not a size of at least 6m; write bytes, or a number with k, m, g "
            "or t, like 512m or 2Gi",
        ),
        (
            "cpu_limit: 1\nresources: {cpu: {limit: 2}}",
            "7:16: the limit is given twice, in resources and in cpu_limit",
        ),
        ("services: {db: {ready: x}}", "6:20: a service needs the key image"),
        (
            "services: {DB: {image: x}}",
            "6:16: services: 'DB' is not a host name of lower-case letters, digits and '-'",
        ),
        (
            "services: {db: {image: x, ports: [1]}}",
            "6:31: ports is not a key of a service; a service is reached by its name, on any port",
        ),
        (
            "services: {localhost: {image: x}}",
            "6:16: services: 'localhost' is not a host name of lower-case letters, digits and '-'",
        ),
        (
            "services: {db: {image: x, command: a && b}}",
            "6:40: command: 'a && b' has the word &&, but no shell runs it; write sh -c '…' for a script",
        ),
        (
            'services: {db: {image: x, command: "sh -c \'a"}}',
            '6:40: command: "sh -c \'a" cannot be split into words: No closing quotation',
        ),
        (
            "services: {db: {image: x, ready_timeout: 2h}}",
            "6:46: ready_timeout: '2h' is not a duration from 1 to 3600 seconds; write seconds, or 90s, "
            "20m, 2h",
        ),
        (
            "services: {" + ", ".join(f"s{n}: {{image: x}}" for n in range(11)) + "}",
            "6:15: services has 11 entries; at most 10 are allowed",
        ),
        ("cache: [{paths: /x}]", "6:13: a cache needs the key key"),
        (
            'cache: {key: "file:[", paths: /x}',
            "6:18: key: the glob '[' has a [ that is not closed; write [[] for a [ itself",
        ),
        ('cache: {key: "a\\nb", paths: /x}', "6:18: key: 'a\\nb' has line breaks or control characters"),
        (
            "cache: {key: a, paths: [~/.m2]}",
            "6:29: paths: '~/.m2' begins with ~, which only a shell knows; write the directory, like "
            "/root/.cache",
        ),
        (
            "cache: {key: a, paths: [../x]}",
            "6:29: paths: '../x' has '.' or '..'; write the path without them",
        ),
        (
            "cache: {key: a, paths: ['**/x']}",
            "6:29: paths: '**/x' is a glob; write the directory that the files are in",
        ),
        ("cache: {key: a, paths: [/]}", "6:29: paths: '/' names no file or directory"),
        ("cache: {key: a, paths: [/job/artifacts/x]}", "6:29: paths: '/job/artifacts/x' cannot be cached"),
        ("on: pull_request", "6:9: the job would never run: the workflow starts on push"),
        ("on: {tags: [v*], events: push}", "6:9: on: tags need the event tag_created among the events"),
        ("concurrency: {}", "6:18: concurrency needs the key group"),
        (
            "capabilities: [docker]",
            "6:19: capabilities: docker is not available: a job never gets the engine's socket; to "
            "build images, use builder",
        ),
        ("capabilities: [gpu]", "6:19: capabilities: gpu is not available here"),
        (
            "run_as: {user: runner}",
            "6:13: run_as: this user is not available; a job runs as the user of its image; leave it out",
        ),
        ("run_local: {user: ann}", "6:23: user: 'ann' is not host, root, runner or uid[:gid]"),
        ("job_file: nope.yaml", "6:15: there is no file 'nope.yaml' in .reactorcide/jobs"),
        (
            "job_file: ../workflows/ci.yaml",
            "6:15: there is no file '../workflows/ci.yaml' in .reactorcide/jobs",
        ),
        ("job_file: scripts/ci.yaml", "6:15: there is no file 'scripts/ci.yaml' in .reactorcide/jobs"),
        ("job: {command: x}", "6:20: command is given twice, also in line 5"),
        (
            "matrix: {a: [1]}\nfor_each: [1]",
            "4:3: matrix and for_each are two ways to say the same; give one of them",
        ),
        ("item_var: A", "6:15: item_var belongs to for_each, which is missing"),
        ("matrix: {a: []}", "6:17: the axis a takes a list of values"),
        ("matrix: {a: [1, 2], exclude: [{b: 1}]}", "6:36: exclude: there is no axis 'b'"),
        (
            "matrix: {a: [1], exclude: [{a: 1}]}",
            "6:13: matrix has no combination; give it an axis with values, or include",
        ),
        ("for_each: [a, a]", "6:15: for_each takes at least one value, and each once"),
    ],
)
def test_each_key_of_a_job_has_its_error(keys: str, expected: str) -> None:
    assert problems(job(keys)) == [expected]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            "image_pull_secrets: [x]",
            "6:5: warning: image_pull_secrets means nothing here: logins are the operator's",
        ),
        ("worker_class: big", "6:5: warning: worker_class means nothing here: any worker may take it"),
        (
            "characteristics: {os: linux}",
            "6:5: warning: characteristics means nothing here: any worker may take it",
        ),
        (
            "raw_command: true",
            "6:5: warning: raw_command means nothing here: every command runs as it is written, and has the "
            "source in code_dir; one that clones it there needs checkout: false",
        ),
        ("resources: {cpu: {request: 1}}", "6:23: warning: request means nothing here: only limits count"),
        (
            "source: {type: none}",
            "6:5: warning: source means nothing here: a job gets the source of its run; without "
            "one: checkout: false",
        ),
        ("run_as: {user: root}", "6:13: warning: run_as is ignored: a job runs as the user of its image"),
        ("matrix: {a: [1, 2], exclude: [{a: 3}]}", "6:35: warning: this excludes no combination"),
    ],
)
def test_keys_without_effect_are_warnings(keys: str, expected: str) -> None:
    definition = define(job(keys))

    assert [str(problem).partition("ci.yaml:")[2] for problem in definition.problems] == [expected]
    assert definition.errors == ()


def test_item_variable_without_a_list_is_an_error_beside_a_matrix() -> None:
    assert problems(job("matrix: {a: [1]}\nitem_var: B")) == [
        "4:3: matrix and for_each are two ways to say the same; give one of them",
        "7:15: item_var belongs to for_each, which is missing",
    ]


def test_an_error_in_a_job_file_has_the_place_in_that_file() -> None:
    workflow = "name: CI\non: push\njobs:\n  a: {job_file: unit.yaml}\n  b: {job_file: unti.yaml}\n"
    definition = define(workflow, unit="name: unit\njob:\n  comand: x\n")

    assert [str(problem) for problem in definition.problems] == [
        ".reactorcide/jobs/unit.yaml:3:3: 'comand' is not a key of a job; did you mean command?",
        ".reactorcide/workflows/ci.yaml:4:3: the job 'a' needs the key command, with a script",
        ".reactorcide/workflows/ci.yaml:5:3: the job 'b' needs the key command, with a script",
        ".reactorcide/workflows/ci.yaml:5:17: there is no file 'unti.yaml' in "
        ".reactorcide/jobs; did you mean unit.yaml?",
    ]


def test_values_refused_on_submit_are_errors_of_the_file() -> None:
    long = "é" * 17_000
    assert problems(job(f"environment: {{A: {long}}}")) == [
        "6:22: A has 34000 bytes; at most 32768 are allowed"
    ]
    # Each is short enough; all of them are not, for each place where they stand.
    texts = "".join(f"  V{i}: *long\n" for i in range(40))
    errors = problems(f"vars: {{a: &long {'x' * 30_000}}}\n" + job("environment:\n" + texts))
    assert [problem.partition(": ")[2] for problem in errors] == [
        "with its anchors expanded the file has more than 10000 keys and values, or more than 1 MiB"
    ]
    texts = "".join(f"  V{i}: '${{vars.a}}'\n" for i in range(40))
    assert problems(f"vars: {{a: {'x' * 30_000}}}\n" + job("environment:\n" + texts)) == [
        "8:7: the environment and the command together must stay below 1 MiB"
    ]


def test_a_job_files_triggers_name_events() -> None:
    (definition,) = check({".reactorcide/jobs/a.yaml": "name: a\nrun: x\ntriggers: {branches: main}\n"}, "x")

    assert [str(problem) for problem in definition.problems] == [
        ".reactorcide/jobs/a.yaml:3:11: triggers needs the key events"
    ]


def test_a_workflow_without_on_or_jobs_is_an_error() -> None:
    assert problems("name: CI\n") == [
        "1:1: a workflow needs the key jobs",
        "1:1: a workflow needs the key on or triggers",
    ]


def test_number_of_listed_problems_is_limited() -> None:
    errors = problems("name: CI\non: push\njobs:\n" + "".join(f"  j{i}: {{commnd: x}}\n" for i in range(300)))

    assert len(errors) == 101
    assert errors[-1].endswith("there are more than 100 problems; these come first")
