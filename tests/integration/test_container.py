"""What a job finds in its container."""

import pytest

from tests.support.client import Client, Job
from tests.support.image import Images
from tests.support.service import Service


def environment(api: Client, job: Job) -> dict[str, str]:
    """Return what a job that ran ``env`` saw."""
    return dict(line.split("=", 1) for line in api.log(job).decode().splitlines())


def test_every_job_has_the_reactorcide_variables(api: Client) -> None:
    job = api.run("env", name="Build it", queue_name="own.queue", code_dir="/code")
    assert job["status"] == "completed"
    variables = environment(api, job)
    expected = {
        "CI": "true",
        "REACTORCIDE": "true",
        "REACTORCIDE_JOB_ID": job["job_id"],
        "REACTORCIDE_JOB_NAME": "Build it",
        "REACTORCIDE_QUEUE": "own.queue",
        "REACTORCIDE_ATTEMPT": "1",
        "REACTORCIDE_CODE_DIR": "/code",
        "REACTORCIDE_ARTIFACTS_DIR": "/job/artifacts",
    }
    assert {name: variables.get(name) for name in expected} == expected
    assert not any(name.startswith("REACTORCIDE_GIT") for name in variables)
    assert "REACTORCIDE_API_TOKEN" not in variables


def test_variables_of_the_job_take_precedence(api: Client) -> None:
    own = {"CI": "mine", "REACTORCIDE_ATTEMPT": "", "EMPTY": "", "QUOTED": "a 'b' \"c\" $D = ü"}
    variables = environment(api, api.run("env", job_env_vars=own))
    assert {name: variables[name] for name in own} == own


def test_large_environments_and_commands_arrive_complete(api: Client) -> None:
    large = {f"LARGE_{i}": "x" * (32 << 10) for i in range(24)}
    command = "env | wc -c; echo " + "y" * (99 << 10)
    printed, echoed = api.log(api.run(command, job_env_vars=large)).splitlines()
    assert int(printed) > 24 * (32 << 10)
    assert echoed == b"y" * (99 << 10)


def test_the_command_is_a_script_that_ends_at_its_first_failure(api: Client) -> None:
    job = api.run("echo one\nfalse\necho two")
    assert (job["status"], job["exit_code"], job["error"]) == ("failed", 1, "exit code 1")
    assert api.log(job).startswith(b"one\n")
    assert b"two" not in api.log(job)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({}, "/job/src"),
        ({"code_dir": "/elsewhere/deep"}, "/elsewhere/deep"),
        ({"job_dir": "/work dir"}, "/work dir"),
    ],
)
def test_the_command_runs_in_job_dir(api: Client, fields: dict[str, str], where: str) -> None:
    job = api.run("pwd; touch here", **fields)
    assert (job["status"], api.log(job)) == ("completed", f"{where}\n".encode())


@pytest.mark.parametrize("image", ["default", "user_1000"])
def test_job_can_write_to_its_workspace(service: Service, images: Images, image: str) -> None:
    source = service.source_root / f"writable-{image}"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("old")
    job = service.admin.run(
        "echo new >$REACTORCIDE_CODE_DIR/sub/file; touch $REACTORCIDE_CODE_DIR/beside"
        " here $REACTORCIDE_ARTIFACTS_DIR/out; id -u",
        runner_image=getattr(images, image),
        source_path=source.name,
        job_dir="/job/src/sub",
    )
    assert job["status"] == "completed", service.admin.log(job)
    assert service.admin.artifact_paths(job) == ["out"]
    assert service.admin.log(job) == (b"1000\n" if image == "user_1000" else b"0\n")
    assert (source / "sub" / "file").read_text() == "old"


def test_non_root_user_can_write_to_an_empty_workspace(api: Client, images: Images) -> None:
    for fields in ({}, {"job_dir": "/job/elsewhere"}):
        job = api.run("touch here", runner_image=images.user_1000, **fields)
        assert job["status"] == "completed", api.log(job)


def test_artifacts_directory_exists_and_is_empty(api: Client) -> None:
    job = api.run("ls -A /job/artifacts; test -d /job/artifacts")
    assert (job["status"], api.log(job)) == ("completed", b"")


def test_nothing_of_the_host_is_mounted(api: Client) -> None:
    job = api.run("test ! -e /var/run/docker.sock; ! grep -q sources /proc/mounts")
    assert job["status"] == "completed"


def test_limits_are_set_on_the_container(api: Client) -> None:
    job = api.run(
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null || true",
        memory_limit="64m",
        cpu_limit=0.5,
    )
    assert api.log(job).split() == [str(64 << 20).encode()]
