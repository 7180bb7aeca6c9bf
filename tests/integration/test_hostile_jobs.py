"""What a hostile job tries, and cannot do: each command below is an attack."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import docker
import pytest

from tests.conftest import NewService, ended_cleanly
from tests.support.client import Client, Job
from tests.support.image import Images, image_with_script_as_shell
from tests.support.service import Service
from tests.support.tars import member, tar_gz
from tests.support.waiting import wait_until

CANARY = "canary-7c1f0e"
LISTEN = "hostname -i; echo secret >/tmp/page; while :; do nc -l -p 8000 </tmp/page; done"

# None of them does harm where it works.
ATTACKS = (
    "echo h >/proc/sysrq-trigger",
    "cat /proc/sys/kernel/core_pattern >/proc/sys/kernel/core_pattern",
    "cat /proc/sys/vm/overcommit_memory >/proc/sys/vm/overcommit_memory",
    "head -c 1 /proc/kcore | grep -q .",
    "head -c 1 /dev/mem",
    "dmesg",
    "mount -t proc proc /tmp",
    "mount -t tmpfs none /tmp",
    "mount -o remount,rw /sys",
    "mkdir /tmp/c; mount -t cgroup -o memory cgroup /tmp/c",
    "umount /proc/kcore",
    "mknod /tmp/disk b 8 0",
    "chroot / /bin/true",
    "unshare -U true",
    "unshare -m true",
    "nsenter -t 1 -m -n true",
    "hostname hostile",
    "! date -s @$(date +%s) 2>&1 | grep -q 'not permitted'",
    "ip link set lo down",
    "arping -c 1 -w 1 -I eth0 127.0.0.1",
    "cd /sys/fs/cgroup/memory && echo 1 >memory.use_hierarchy",
    "mkdir /sys/fs/cgroup/memory/mine /sys/fs/cgroup/mine/cgroup.procs",
    "renice -n -10 $$",
    "test -S /var/run/docker.sock || test -S /run/docker.sock",
    "ls /dev | grep -E '^(sd|vd|xvd|nvme|loop|kmsg|mem)'",
)


@pytest.fixture(scope="module")
def strict(
    tmp_path_factory: pytest.TempPathFactory, engine: docker.APIClient, images: Images
) -> Iterator[Service]:
    """A service with narrow limits, whose jobs cannot reach each other, that listens on every address."""
    service = Service(
        tmp_path_factory.mktemp("strict"),
        images.default,
        {"CANARY": CANARY, "AWS_SECRET_ACCESS_KEY": CANARY},
        concurrency=3,
        cancel_grace=1,
        pids_limit=64,
        max_disk="32m",
        job_network="isolated",
        host="0.0.0.0",  # noqa: S104  # so that there is something to reach from inside
        log_format="json",
    )
    yield from ended_cleanly(service.start(), engine)


@pytest.fixture
def victim(strict: Service) -> Iterator[Job]:
    """Another user's job that runs meanwhile, and listens."""
    other = strict.add_user(f"victim-{uuid.uuid4()}")
    job = other.submit(LISTEN)
    other.wait(job, "running")
    wait_until(lambda: bool(other.log(job).strip()), 20, "it tells its address")
    yield job | {"address": other.log(job).split()[0].decode()}
    assert other.job(job)["status"] == "running"
    other.cancel(job)
    other.wait(job)


def attack(service: Service, command: str, **fields: object) -> tuple[Job, str]:
    """Run a job to its end; return it and its log."""
    job = service.admin.run(command, **fields)
    return job, service.admin.log(job).decode(errors="replace")


def test_fork_bomb_is_contained(strict: Service, victim: Job) -> None:
    # A shell that cannot fork ends; what it leaves in its place needs no fork.
    bomb = strict.admin.submit(
        "trap 'exec sleep 60' EXIT; f() { f | f & }; while :; do f; done", timeout_seconds=4
    )
    strict.admin.wait(bomb, "running")
    _, log = attack(strict, "echo still here")
    assert log == "still here\n"
    ended = strict.admin.wait(bomb)
    assert ended["status"] == "failed"
    assert b"fork" in strict.admin.log(bomb)
    assert strict.until_ready()["checks"]["worker"] == "ok"


def test_disk_limit_stops_a_job_that_fills_the_disk(strict: Service) -> None:
    places = ["/tmp/full", "/job/src/full"]  # noqa: S108  # the container's
    if os.geteuid() == 0:
        # A volume, which nobody else may look into.
        places.append("/job/artifacts/full")
    jobs = [strict.admin.submit(f"dd if=/dev/zero of={place} bs=1M count=48; sleep 60") for place in places]
    for job in map(strict.admin.wait, jobs):
        assert (job["status"], job["error"]) == (
            "failed",
            "killed: used more than 32 MiB of disk (--max-disk)",
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into the files of a container")
def test_disk_limit_counts_files_the_engine_does_not_report(strict: Service) -> None:
    jobs = [
        strict.admin.submit(f"{command}; sleep 60")
        for command in (
            "exec 3>/tmp/full; rm /tmp/full; head -c 48m /dev/zero >&3",
            "head -c 48m /dev/zero >>/etc/hosts",
            # Less than it may print, and six times as much in the engine's copy.
            "head -c 10m /dev/zero",
        )
    ]
    for job in map(strict.admin.wait, jobs):
        assert job["error"] == "killed: used more than 32 MiB of disk (--max-disk)"


NOT_READ = "the image's /bin/sh did not take the command"


@pytest.mark.parametrize(
    ("script", "timeout_s", "error"),
    [
        (
            "dd if=/dev/zero of=/full bs=1M count=48; sleep 1000",
            50,
            "killed: used more than 32 MiB of disk (--max-disk)",
        ),
        ("yes", 50, "the image's /bin/sh printed more than 1 MiB before it took the command"),
        # As if the command wrote that, but on one stream alone.
        (
            "echo '[reactorcide] the command has been handed over' >&2; exec yes >&2",
            50,
            "the image's /bin/sh printed more than 1 MiB before it took the command",
        ),
        ("trap : TERM; echo waiting; sleep 1000", 4, f"timed out after 4 s: {NOT_READ}, but said: waiting"),
    ],
)
def test_shell_of_an_image_is_bound_by_the_limits_of_its_job(
    strict: Service, engine: docker.APIClient, script: str, timeout_s: int, error: str
) -> None:
    image = image_with_script_as_shell(engine, script)
    before_kib = resident_kib(strict)
    # More variables than a pipe holds.
    variables = {f"LONG{number}": "x" * 32_000 for number in range(12)}
    job = strict.admin.submit("id", runner_image=image, timeout_seconds=timeout_s, job_env_vars=variables)
    ended = strict.admin.wait(job, deadline_s=90)
    assert (ended["status"], ended["error"], ended["attempt"]) == ("failed", error, 1)
    assert resident_kib(strict) - before_kib < 32 << 10
    wait_until(lambda: not strict.containers(engine, job), 20, "its container goes")


def test_source_counts_for_the_disk_limit_while_it_is_copied(strict: Service) -> None:
    (strict.source_root / "sparse").mkdir()
    with (strict.source_root / "sparse" / "hole").open("wb") as hole:
        hole.truncate(1 << 40)
    upload = tar_gz(member("large", bytes(40 << 20)))
    answer = strict.admin.request(
        "POST", "sources", data=upload, headers={"Content-Type": "application/gzip"}
    )
    for fields in ({"source_path": "sparse"}, {"source_id": answer.json()["source_id"]}):
        job, _ = attack(strict, "true", **fields)
        assert job["error"] == "the source takes more than 32 MiB of the disk (--max-disk)", fields
        assert job["attempt"] == 1


def test_job_within_its_disk_limit_succeeds(strict: Service) -> None:
    # Longer than it takes until it is looked at.
    job, _ = attack(strict, "dd if=/dev/zero of=/tmp/some bs=1M count=16; sleep 5")
    assert job["status"] == "completed"


def test_flood_of_output_is_cut_and_takes_little_memory(strict: Service, victim: Job) -> None:
    before_kib = resident_kib(strict)
    flood = strict.admin.submit("yes 'all work and no play'; sleep 60")
    strict.admin.wait(flood, "running")
    assert strict.anonymous().request("GET", "health").status_code == 200
    ended = strict.admin.wait(flood)
    assert ended["error"] == "killed: used more than 32 MiB of disk (--max-disk)"
    # Of a log of more than 16 MiB.
    assert resident_kib(strict) - before_kib < 16 << 10


def resident_kib(service: Service) -> int:
    """Return the memory of the service's processes."""
    total = 0
    for process in service.pids():
        status = Path(f"/proc/{process}/status").read_text()
        total += int(status.partition("VmRSS:")[2].split()[0])
    return total


def test_containers_of_other_jobs_are_unreachable(strict: Service, victim: Job) -> None:
    name = f"reactorcide-{victim['job_id']}-1"
    where = (victim["address"], name)
    job, log = attack(strict, "".join(f"nc -w 2 {target} 8000 </dev/null || true\n" for target in where))
    assert (job["status"], "secret" in log) == ("completed", False)


def test_containers_on_the_default_bridge_are_reachable(api: Client) -> None:
    """So that the test above does not pass for another reason."""
    listening = api.submit(LISTEN)
    wait_until(lambda: bool(api.log(listening).strip()), 20, "it tells its address")
    address = api.log(listening).split()[0].decode()
    job = api.run(f"nc -w 2 {address} 8000 </dev/null; true")
    assert api.log(job) == b"secret\n"
    api.cancel(listening)
    api.wait(listening)


def test_host_is_unreachable(strict: Service) -> None:
    attempts = "".join(
        f"if ({attack}) 2>&1; then echo 'it worked: '{quote(attack)}; fi\n" for attack in ATTACKS
    )
    job, log = attack(strict, attempts)
    assert job["status"] == "completed", log
    assert "it worked" not in log
    # Or it would say nothing of the host that the image has no such program.
    assert "not found" not in log


def test_job_sees_only_its_own_processes(strict: Service) -> None:
    _, log = attack(strict, "cat /proc/1/cmdline | tr '\\0' ' '; echo; ls /proc | grep -c '^[0-9]'")
    # A command of several lines is among them.
    first, *_, count = log.splitlines()
    assert "init" in first
    assert int(count) < 10


def test_a_job_has_few_capabilities_and_gains_none(strict: Service) -> None:
    _, log = attack(strict, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
    status = dict(line.split(":\t") for line in log.splitlines())
    # CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE, SETFCAP, by their numbers.
    few = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 10, 31))
    assert {int(status[name], 16) for name in ("CapBnd", "CapEff", "CapPrm")} == {few}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_environment_of_the_service_is_not_in_jobs(strict: Service) -> None:
    script = "env; cat /proc/*/environ | tr '\\0' '\\n'; set"
    _, log = attack(strict, script, job_env_vars={"SEEN": "yes"})
    assert "SEEN=yes" in log
    assert CANARY not in log
    assert "AWS_SECRET" not in log


def test_api_refuses_a_job_without_a_token(strict: Service) -> None:
    gateway = "$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p')"
    script = f"""
        for path in jobs users/me workers tokens queues; do
            printf 'GET /api/v1/%s HTTP/1.0\\r\\n\\r\\n' $path | nc -w 5 {gateway} {strict.port} | head -1
        done"""
    job, log = attack(strict, script)
    assert job["status"] == "completed"
    assert log.split("\r\n")[:-1] == ["HTTP/1.1 401 UNAUTHORIZED"] * 5


def test_engine_reports_the_restrictions(strict: Service, engine: docker.APIClient) -> None:
    job = strict.admin.submit("sleep 60")
    strict.admin.wait(job, "running")
    wait_until(lambda: bool(strict.containers(engine, job)), 20, "its container is there")
    [container] = strict.containers(engine, job)
    host = engine.inspect_container(container["Id"])["HostConfig"]
    strict.admin.cancel(job)
    assert not host["Privileged"]
    assert not host["Binds"]
    assert not host["Devices"]
    assert not host["VolumesFrom"]
    assert not host["PortBindings"]
    assert host["NetworkMode"] == "reactorcide-isolated"
    assert (host["PidMode"], host["UTSMode"], host["UsernsMode"]) == ("", "", "")
    assert host["IpcMode"] in ("private", "shareable")
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["MaskedPaths"]
    assert host["ReadonlyPaths"]
    strict.admin.wait(job)


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_network_can_be_set(new_service: NewService, network: str) -> None:
    api = new_service(job_network=network).admin
    log = api.log(api.run("ls /sys/class/net"))
    assert log.split() == ([b"lo"] if network == "none" else [b"eth0", b"lo"])


def test_privileges_can_be_set(new_service: NewService) -> None:
    api = new_service(cap_add="sys_chroot", allow_new_privileges=None).admin
    job = api.run("chroot / /bin/true; grep NoNewPrivs /proc/self/status")
    assert (job["status"], api.log(job)) == ("completed", b"NoNewPrivs:\t0\n")


def test_attacks_log_no_error_in_the_service(strict: Service) -> None:
    """Nothing of the above was an unexpected failure of ours."""
    lines = [json.loads(line) for line in strict.log_text().splitlines() if line.startswith("{")]
    assert [line for line in lines if line["level"] == "error"] == []
