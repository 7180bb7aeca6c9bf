"""Keys of a workflow's job that are fields of a job, on the real engine: each right, and failing."""

import uuid
from collections.abc import Callable

import pytest

from tests.sources.support import Repository
from tests.support.client import Client
from tests.support.image import Images
from tests.support.runs import Run, node, over, repository, start
from tests.support.service import Service

NewRun = Callable[[str], Run]
RIGHT = """
name: Right
on: push
vars: {image: IMAGE}
environment: {FROM: workflow}
jobs:
  fields:
    description: all that is a field of a job
    image: "${vars.image}"
    code_dir: /work
    working_dir: /work/deep
    submodules: false
    environment: {VERSION: 3.10, YES: true, REACTORCIDE_BRANCH: mine, REACTORCIDE_RUN_ID: mine}
    timeout: 20m
    retries: 2
    priority: 7
    queue: slow
    resources: {cpu: {limit: 0.5}, memory: {limit: 64m}}
    artifacts: ["*.txt"]
    command: |
      pwd; cat ../README; echo "$FROM $VERSION $YES $REACTORCIDE_BRANCH $REACTORCIDE_RUN_ID"; ls -A ../sub
      touch /job/artifacts/kept.txt /job/artifacts/not
  each:
    checkout: false
    for_each: [x, y]
    item_var: LETTER
    command: echo "letter $LETTER"; test ! -e /job/src/README
  unit:
    job_file: unit.yaml
    environment: {B: workflow}
  bash:
    submodules: false
    shell: bash
    environment: {PATH: "/job/src/deep:/bin"}
    command: echo 'it''s' "$0" | cat
"""
BASH = '#!/bin/sh\necho "$1 $2 $3"\nexec /bin/sh -ec "$4"\n'
UNIT = "name: unit\njob: {command: 'echo \"$A $B\"', checkout: false}\nenvironment: {A: file, B: file}\n"
WRONG = """
name: Wrong
on: push
jobs:
  timeout: {checkout: false, timeout: 1s, command: sleep 60}
  memory:
    checkout: false
    resources: {memory: {limit: 8m}}
    command: dd if=/dev/zero of=/dev/null bs=64M count=1
  working_dir: {checkout: false, working_dir: /etc/passwd, command: "true"}
  submodules: {command: "true"}
  bash: {checkout: false, shell: bash, command: "true"}
  job_file: {job_file: unit.yaml, command: exit 3}
"""


@pytest.fixture
def run(api: Client, service: Service, images: Images) -> NewRun:
    """Run a workflow of a repository with a submodule that is not available."""

    def run_workflow(text: str) -> Run:
        files = {"workflows/ci.yaml": text.replace("IMAGE", images.default), "jobs/unit.yaml": UNIT}
        source: Repository = repository(service.source_root / uuid.uuid4().hex, files)
        (source.path / "deep").mkdir()
        # The image of the tests has none.
        (source.path / "deep" / "bash").write_text(BASH)
        (source.path / "deep" / "bash").chmod(0o755)
        source.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
        (source.path / "sub").mkdir()
        source.commit(".gitmodules", '[submodule "sub"]\n\tpath = sub\n\turl = ../gone\n')
        return over(api, start(api, source, event={"name": "push"}))

    return run_workflow


def test_keys_set_fields_of_a_job(api: Client, run: NewRun, images: Images) -> None:
    ended = run(RIGHT)
    assert ended["status"] == "completed", ended
    ids = {item["name"]: {"job_id": item["job_id"]} for item in ended["nodes"]}
    job = api.job(ids["fields"])
    expected = {
        "description": "all that is a field of a job",
        "runner_image": images.default,
        "code_dir": "/work",
        "job_dir": "/work/deep",
        "git_submodules": False,
        "timeout_seconds": 1200,
        "retries": 2,
        "priority": 7,
        "queue_name": "slow",
        "cpu_limit": 0.5,
        "memory_limit": 64 << 20,
        "artifacts": ["*.txt"],
    }
    assert {name: job[name] for name in expected} == expected
    assert api.log(ids["fields"]).endswith(
        f"/work/deep\nread me\nworkflow 3.10 true mine {ended['run_id']}\n".encode()
    )
    artifacts = api.get(f"jobs/{job['job_id']}/artifacts")["artifacts"]
    assert [item["path"] for item in artifacts] == ["kept.txt"]
    lines = {
        "each (x)": "letter x",
        "each (y)": "letter y",
        "unit": "file workflow",
        "bash": "-eo pipefail -c\nits /bin/sh",
    }
    for name, line in lines.items():
        assert api.log(ids[name]).decode().endswith(f"{line}\n")


def test_each_invalid_key_has_its_message(run: NewRun) -> None:
    ended = run(WRONG)
    reasons = {item["name"]: item["reason"] for item in ended["nodes"]}
    assert node(ended, "job_file")["status"] == ended["status"] == "failed"
    # Whether it was the engine or the kernel that saw it differs.
    assert "8 MiB" in reasons.pop("memory")
    assert reasons == {
        "timeout": "timed out after 1 s",
        "working_dir": "the Docker Engine refused to create a container: Cannot mkdir: /etc/passwd is not a "
        "directory",
        "submodules": 'git: submodule "sub": its url must lead to a repository below one of the server\'s '
        "source roots",
        "bash": "exit code 127 (a command was not found, or the image has no /bin/sh)",
        "job_file": "exit code 3",
    }
