"""What the jobs of a workflow have beside them, and get of each other, on the real engine."""

import json
import shutil
import uuid
from collections.abc import Callable

import pytest

from tests.conftest import NewService
from tests.sources.support import Repository
from tests.support.client import Client
from tests.support.image import Images
from tests.support.runs import Run, node, over, repository, start, statuses
from tests.support.service import Service

NewRun = Callable[[str], Run]


@pytest.fixture
def run(api: Client, service: Service, images: Images) -> NewRun:
    """Run jobs to their end: a function of the text of a workflow's ``jobs``; IMAGE in it is the image."""

    def run_jobs(text: str) -> Run:
        head = "name: CI\non: push\nvars: {word: hello}\njobs:\n"
        files = {"workflows/ci.yaml": head + text.replace("IMAGE", images.default)}
        source: Repository = repository(service.source_root / uuid.uuid4().hex, files)
        return over(api, start(api, source, event={"name": "push"}))

    return run_jobs


def log_of(api: Client, ended: Run, name: str) -> str:
    return api.log({"job_id": node(ended, name)["job_id"]}).decode()


def error_of(api: Client, ended: Run, name: str) -> str:
    return str(api.job({"job_id": node(ended, name)["job_id"]})["error"])


SERVICES = """
  ask:
    matrix: {port: [8080, 8081]}
    services:
      web:
        image: IMAGE
        env: {WORD: "${vars.word}", PORT: "${matrix.port}", PASSWORD: "pa55-${event.name}"}
        command: >-
          sh -c 'mkdir /www; echo "$WORD $PASSWORD" >/www/x; echo "for $PASSWORD";
          sleep 0.5; exec httpd -f -p $PORT -h /www'
        ready: wget -q -O - http://localhost:$PORT/x
        ready_timeout: 20s
    env: {PORT: "${matrix.port}"}
    command: wget -q -O - http://web:$PORT/x
"""


def test_a_job_has_its_services(api: Client, run: NewRun) -> None:
    ended = run(SERVICES)
    assert ended["status"] == "completed", ended
    for name in ("ask (8080)", "ask (8081)"):
        # What a variable of the service has is secret for the log of the job, too.
        assert "hello [REDACTED]\n" in log_of(api, ended, name)
        job = api.job({"job_id": node(ended, name)["job_id"]})
        assert job["services"]["web"]["environment"]["PASSWORD"] == "[REDACTED]"
        response = api.request("GET", f"jobs/{job['job_id']}/logs", params={"service": "web"})
        assert response.text == "for [REDACTED]\n"


def test_a_service_that_is_not_ready_fails_the_node(api: Client, run: NewRun) -> None:
    ended = run("""
  ask: {services: {db: {image: IMAGE, command: sleep 60, ready: "false", ready_timeout: 1}}, command: "true"}
  after: {needs: [ask], command: "true"}
""")
    assert statuses(ended) == {"ask": "failed", "after": "skipped"}
    assert error_of(api, ended, "ask") == "service db was not ready after 1 s"


OUTPUTS = """
  build:
    command: |
      test -f $REACTORCIDE_OUTPUT && test "$(cat $RC_WF_VARS_FILE)" = '{"word": "hello"}'
      echo 'version=1.2; touch /tmp/x #' >> $REACTORCIDE_OUTPUT
      echo 'image=IMAGE' >> $REACTORCIDE_OUTPUT
      echo 'line="]}: ${needs.build.version}' >> $RC_WF_OUTPUT_FILE
  original:
    checkout: false
    command: printf '{"vars":{"tag":"v%s"},"outputs":{"n":3.10}}' 1 > $RC_WF_OUTPUT_FILE
  use:
    needs: [build, original]
    image: "${needs.build.image}"
    services: {other: {image: "${needs.build.image}", command: sleep 60, env: {A: "${needs.build.version}"}}}
    environment:
      VERSION: "v${needs.build.version}"
      LINE: "${needs.build.line}"
      N: "${needs.original.n} ${needs.original.tag}"
    command: |
      echo "$VERSION|$LINE|$N"
      test ! -e /tmp/x
      cat $RC_WF_VARS_FILE
  last: {needs: [use], checkout: false, command: cat $RC_WF_VARS_FILE}
"""


def test_jobs_read_outputs_of_others(api: Client, run: NewRun, images: Images) -> None:
    ended = run(OUTPUTS)
    assert ended["status"] == "completed", ended
    first, _, variables = log_of(api, ended, "use").rpartition("\n")
    version, line = "1.2; touch /tmp/x #", '"]}: ${needs.build.version}'
    assert first.endswith(f"v{version}|{line}|3.10 v1")
    expected = {
        "word": "hello",
        "tag": "v1",
        "build.version": version,
        "build.image": images.default,
        "build.line": line,
        "original.n": "3.10",
    }
    assert json.loads(variables) == expected
    # Also what comes from further up.
    assert json.loads(log_of(api, ended, "last")) == expected
    job = api.job({"job_id": node(ended, "use")["job_id"]})
    assert job["services"]["other"]["environment"] == {"A": version}


def test_non_root_user_can_write_outputs(api: Client, run: NewRun, images: Images) -> None:
    ended = run(f"""
  a: {{image: {images.user_1000}, checkout: false, command: echo v=$(id -u) >$REACTORCIDE_OUTPUT}}
  b: {{needs: [a], env: {{V: "${{needs.a.v}}"}}, command: echo uid $V}}
""")
    assert log_of(api, ended, "b").endswith("uid 1000\n")


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("ln -sf /etc/passwd $F", "/job/workflow-output is not a regular file"),
        ("mv /job /other; ln -s job /job", "the Docker Engine refused to look at /job/triggers.json: "),
        ("rm -f $F; mkfifo $F", "/job/workflow-output is not a regular file"),
        ("rm -f $F; mkdir $F", "/job/workflow-output is not a regular file"),
        ("dd if=/dev/zero of=$F bs=1 count=1 seek=100G", "/job/workflow-output is larger than 64 KiB"),
        (r"printf 'a=\377' >$F", "its outputs cannot be read: /job/workflow-output is not UTF-8"),
        (
            "echo no >$F; exit 3",
            "exit code 3; its outputs cannot be read: /job/workflow-output has in line 1",
        ),
        ("echo [] > /job/triggers.json", "it left /job/triggers.json, which starts no jobs here; name them"),
    ],
)
def test_unreadable_outputs_fail_the_job(api: Client, run: NewRun, command: str, error: str) -> None:
    ended = run("  a:\n    command: |\n      F=$REACTORCIDE_OUTPUT\n      " + command + "\n")
    assert statuses(ended) == {"a": "failed"}
    assert error_of(api, ended, "a").startswith(error)
    assert error.split("; ")[0] in log_of(api, ended, "a")


def test_missing_output_fails_the_node_that_needs_it(api: Client, run: NewRun) -> None:
    ended = run("""
  a:
    env: {MY_TOKEN: tok-12345}
    command: printf "t=my $MY_TOKEN\\nv=1\\ni=A\\n" >$REACTORCIDE_OUTPUT
  unwritten: {needs: [a], env: {V: "${needs.a.w}"}, command: "true"}
  secret: {needs: [a], env: {V: "${needs.a.t}"}, command: "true"}
  image: {needs: [a], image: "x/${needs.a.i}", command: "true"}
  good: {needs: [a], env: {V: "${needs.a.v}"}, command: test $V = 1}
  after: {needs: [unwritten], command: "true"}
""")
    assert statuses(ended) == {
        "a": "completed",
        "unwritten": "failed",
        "secret": "failed",
        "image": "failed",
        "good": "completed",
        "after": "skipped",
    }
    assert node(ended, "unwritten")["reason"] == "${needs.a.w} is not available: a wrote no w"
    assert node(ended, "secret")["reason"] == "${needs.a.t} is refused: its value contains a secret"
    assert node(ended, "image")["reason"] == "its image 'x/A' is not an image reference"
    assert "outputs with a secret in them are not handed on: t\n" in log_of(api, ended, "a")


def test_repeated_job_passes_on_its_newest_outputs(api: Client, run: NewRun, service: Service) -> None:
    ended = run("""
  a: {command: "test -n \\"$X\\" || echo v=$REACTORCIDE_JOB_ID >$REACTORCIDE_OUTPUT"}
  b: {needs: [a], env: {V: "${needs.a.v}"}, command: echo by $V; exit 1}
""")
    first = node(ended, "a")["job_id"]
    for only in ("failed", "all"):
        repeated = api.request("POST", f"runs/{ended['run_id']}/rerun", json={"only": only}).json()
        ended = over(api, repeated)
        writer = node(ended, "a")["job_id"]
        assert (writer == first) is (only == "failed")
        assert f"by {writer}\n" in log_of(api, ended, "b")


ARTIFACTS = """
  build:
    matrix: {os: [linux, free/bsd, ".."], max_parallel: 3}
    env: {OS: "${matrix.os}"}
    command: |
      mkdir -p /job/artifacts/bin
      printf '#!/bin/sh\\necho built for %s\\n' "$OS" >/job/artifacts/bin/tool
      chmod +x /job/artifacts/bin/tool
      ln -s /etc/passwd /job/artifacts/link
      echo odd >'/job/artifacts/-x $(touch y)'
  alone: {checkout: false, command: echo alone >/job/artifacts/x, image: IMAGE}
  root:
    needs: [build, alone]
    artifacts_from: [build, alone]
    command: &use |
      for tool in linux free%2Fbsd %..; do /job/needs/build/$tool/bin/tool; done
      cat /job/needs/alone/x '/job/needs/build/linux/-x $(touch y)'
      find /job/needs -type l -o -type f | wc -l
      touch /job/needs/build/linux/bin/mine
  user: {needs: [build, alone], artifacts_from: [build, alone], checkout: false, image: USER, command: *use}
"""
USED = "built for linux\nbuilt for free/bsd\nbuilt for ..\nalone\nodd\n7\n"


def test_a_job_gets_the_artifacts_of_others(api: Client, run: NewRun, images: Images) -> None:
    ended = run(ARTIFACTS.replace("USER", images.user_1000))
    assert ended["status"] == "completed", ended
    for name in ("root", "user"):
        assert log_of(api, ended, name).endswith(USED)


def test_missing_artifacts_fail_the_job_that_needs_them(api: Client, run: NewRun) -> None:
    ended = run("""
  empty: {matrix: {n: [1, 2]}, command: "test $N = 1 || echo x >/job/artifacts/x", env: {N: "${matrix.n}"}}
  not_here: {on: {branches: [release]}, command: "true"}
  a: {needs: [empty], artifacts_from: [empty], command: echo ran}
  b: {needs: [not_here], condition: always, artifacts_from: [not_here], command: echo ran}
""")
    assert ended["status"] == "failed"
    assert error_of(api, ended, "a") == "artifacts_from: empty (1) has no artifacts"
    missing = "artifacts_from: not_here did not run, so it has no artifacts"
    assert error_of(api, ended, "b") == missing
    assert "\nran\n" not in log_of(api, ended, "a")


def test_artifacts_of_other_jobs_count_for_the_disk_limit(new_service: NewService) -> None:
    service = new_service(max_disk="8m", max_artifacts=3)
    text = """
name: CI
on: push
jobs:
  a: {command: head -c 6000000 /dev/zero >/job/artifacts/a}
  b: {command: head -c 6000000 /dev/zero >/job/artifacts/b}
  many: {command: cd /job/artifacts; touch 1 2 3 4}
  both: {needs: [a, b], artifacts_from: [a, b], command: "true"}
  one: {needs: [a], artifacts_from: [a], command: "true"}
  all: {needs: [many], artifacts_from: [many], command: "true"}
"""
    source = repository(service.source_root / "project", {"workflows/ci.yaml": text})
    ended = over(service.admin, start(service.admin, source))
    assert statuses(ended) | {"both": "failed", "all": "failed"} == statuses(ended)
    assert statuses(ended)["one"] == "completed"
    large = "the source and what it needs take more than 8 MiB of the disk (--max-disk)"
    assert error_of(service.admin, ended, "both") == large
    not_all = "artifacts_from: not all artifacts of many are stored; its log says why"
    assert error_of(service.admin, ended, "all") == not_all


def test_deleted_artifacts_fail_the_job(new_service: NewService) -> None:
    service = new_service()
    text = """
name: CI
on: push
jobs:
  a: {command: echo x >/job/artifacts/x}
  b: {needs: [a], artifacts_from: [a], command: exit 1}
"""
    source = repository(service.source_root / "project", {"workflows/ci.yaml": text})
    ended = over(service.admin, start(service.admin, source))
    job_id = node(ended, "a")["job_id"]
    shutil.rmtree(next(service.data_dir.rglob(job_id)) / "1" / "artifacts")
    repeated = service.admin.request("POST", f"runs/{ended['run_id']}/rerun", json={"only": "failed"}).json()
    ended = over(service.admin, repeated)
    assert error_of(service.admin, ended, "b") == "artifacts_from: the artifacts of a have been deleted"
