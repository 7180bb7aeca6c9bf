"""The handover of a command on a real engine: what a job sees is what plain ``docker run`` shows it.

The same in a container that was started ahead, a warm one, as in one that is created for the job.

Each of the three shells that most images have as ``/bin/sh`` has its own traps.
"""

import itertools
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactorcide.runner import AttachedOutput, ContainerRestarted, ContainerSpec, Exit, Output
from reactorcide.runner.docker import DockerRunner
from reactorcide.runner.docker.containers import _CAPABILITIES
from reactorcide.runner.handover import (
    ACKNOWLEDGEMENT,
    INIT_ENV,
    NOT_HANDED_OVER,
    TRAP,
    AcknowledgementFilter,
    is_handed_over,
)
from tests.support.image import image_with_shell
from tests.support.waiting import wait_until

INSTANCE = f"test-{uuid.uuid4()}"
SHELLS = ("busybox", "dash", "bash")
WAYS = ("cold", "warm")


@pytest.fixture(scope="module")
def runner() -> Iterator[DockerRunner]:
    with closing(DockerRunner({}, warm=1)) as runner:
        yield runner
        runner.drop_warm()
        for container in runner.list(INSTANCE):
            runner.remove(container.container_id)


class Case:
    """Runs commands in one image: handed over, and as ``docker run`` does it."""

    def __init__(self, runner: DockerRunner, engine: docker.APIClient, image: str) -> None:
        self.runner = runner
        self.engine = engine
        self.image = image
        self.container_ids: list[str] = []

    def spec(self, command: str, env: Mapping[str, str], **changes: Any) -> ContainerSpec:
        """Return what a job with that command asks for."""
        spec = ContainerSpec(
            instance_id=INSTANCE,
            job_id=str(uuid.uuid4()),
            attempt=1,
            image=self.image,
            command=command,
            env=env,
            working_dir="/job/src",
            cpu_limit=None,
            memory_limit_bytes=None,
            pids_limit=64,
            can_be_warm=True,
        )
        return replace(spec, **changes)

    def waiting(self, spec: ContainerSpec, way: str = "cold") -> tuple[str, AttachedOutput, Any]:
        """Return a container that has started and waits for its command."""
        before = self.runner.warm_view()
        if way == "warm":
            have_one_wait(self.runner, spec)
        container_id = self.runner.create(spec)
        assert self.runner.warm_view().jobs_warm - before.jobs_warm == (way == "warm")
        self.container_ids.append(container_id)
        output = self.runner.attach(container_id)
        return container_id, output, self.runner.start(container_id)

    def handed_over(
        self, command: str, env: Mapping[str, str] | None = None, way: str = "cold", **changes: Any
    ) -> tuple[bytes, bytes, int]:
        """Return what a command printed on both streams, and its exit code."""
        spec = self.spec(command, env or {}, **changes)
        container_id, output, started = self.waiting(spec, way)
        output.hand_over(spec, started)
        printed = read_all(output)
        assert output.acknowledged, output.launcher_output
        ended = self.runner.wait(container_id, 10, started.at)
        assert ended is not None
        return printed[1], printed[2], ended.exit_code

    def plain(
        self, command: str, env: Mapping[str, str] | None = None, **limits: Any
    ) -> tuple[bytes, bytes, int]:
        """Return the same of ``docker run IMAGE /bin/sh -ec COMMAND``, with every command's trap."""
        created = self.engine.create_container(
            self.image,
            entrypoint=["/bin/sh"],
            command=["-ec", TRAP + command],
            environment=dict(env or {}),
            working_dir="/job/src",
            host_config=self.engine.create_host_config(
                init=True,
                cap_drop=["ALL"],
                cap_add=list(_CAPABILITIES),
                security_opt=["no-new-privileges"],
                pids_limit=64,
                **limits,
            ),
        )
        self.container_ids.append(created["Id"])
        self.engine.start(created["Id"])
        code = self.engine.wait(created["Id"])["StatusCode"]
        stdout, stderr = (
            self.engine.logs(created["Id"], stdout=stdout, stderr=not stdout) for stdout in (True, False)
        )
        return stdout, stderr, code

    def end(self) -> None:
        """Remove the containers."""
        for container_id in self.container_ids:
            self.runner.remove(container_id)


def have_one_wait(runner: DockerRunner, spec: ContainerSpec) -> None:
    """Have a container wait for its job, as after the end of a job like that."""
    runner.pool.created(spec, "of an earlier job")
    runner.pool.removed("of an earlier job")
    runner.keep_warm(lambda: True)
    assert runner.warm_view().waiting == 1


def read_all(output: Output, timeout_s: float = 60) -> dict[int, bytes]:
    """Return what was printed on each stream up to the end, which must come."""
    printed = {1: b"", 2: b""}
    deadline = time.monotonic() + timeout_s
    while (pieces := output.read(1)) is not None:
        for stream, data in pieces:
            printed[stream] += data
        assert time.monotonic() < deadline, "the output does not end"
    output.close()
    return printed


def acknowledged(output: Output) -> None:
    """Read until the command was acknowledged."""
    while not output.acknowledged:
        assert output.read(10) is not None, output.launcher_output


@pytest.fixture
def new_case(runner: DockerRunner, engine: docker.APIClient) -> Iterator[Callable[..., Case]]:
    """A factory of cases, by their shell and the image's variables."""
    cases: list[Case] = []

    def make(shell: str, **variables: str) -> Case:
        cases.append(Case(runner, engine, image_with_shell(engine, shell, variables)))
        return cases[-1]

    yield make
    for case in cases:
        case.end()


# What depends on nothing but the surroundings. Names of hosts and numbers of processes and pipes differ.
LOOK = r"""
env | grep -v ^HOSTNAME= | sort
echo "arguments: $0 $# $*; last: $_; flags: $-"
for fd in 0 1 2 3 4 5 6 7 8 9 10 11 12; do
  [ -e /proc/self/fd/$fd ] && echo $fd $(stat -L -c %F /proc/self/fd/$fd) $(stat -c %A /proc/self/fd/$fd)
done
readlink /proc/self/fd/0
cat /dev/stdin | wc -c
pwd; umask; trap; id -u; id -g; id -G
grep -Ei '^(sig|cap|nonewprivs|seccomp|umask|groups)' /proc/self/status | grep -v SigQ
cat /proc/self/limits /proc/self/oom_score_adj; ulimit -a
find /sys/fs/cgroup -maxdepth 2 | grep -E '(max|limit_in_bytes|quota_us)$' | sort | xargs grep -H ''
cat /proc/[0-9]*/comm
echo "its parent, terminal and niceness: $(cut -d' ' -f4,7,19 /proc/$$/stat)"
cut -d' ' -f4-6 /proc/self/mountinfo | grep -v /job/artifacts | sed 's/[0-9a-f]\{64\}/ID/' | sort
find / -xdev | grep -vE '^/(proc|bin)/|/job/artifacts' | sort
ls -lA /tmp; df -P /dev/shm | tr -s ' ' | cut -d' ' -f2
cat /etc/resolv.conf; grep -vc "$(hostname)" /etc/hosts; ip route | wc -l; netstat -an | wc -l
set | grep -cE '^r[0-9a-f]{32}=' || :
echo "line $LINENO" >&2
nosuch-command || echo "not found: $?"
(exit 5) || echo "its code: $?"
nosuch-command
"""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "image_env",
    [
        {},
        {
            # Whatever a shell could take as meant for itself.
            **{
                "SHLVL": "7",
                "TMOUT": "1",
                "IFS": "x",
                "PS4": "trace",
                "ENV": "/nowhere",
                "BASH_ENV": "/nowhere",
            },
            **{"LC_ALL": "C.UTF-8", "PWD": "/nowhere", "OLDPWD": "/nowhere", "_": "q", "r": "1", "line": "l"},
            **{
                "SHELLOPTS": "xtrace:errexit",
                "POSIXLY_CORRECT": "1",
                "CDPATH": "/",
                "HOME": "/x",
                "REPLY": "y",
            },
            **{
                "TINI_SUBREAPER": "1",
                "PS1": "$ ",
                "1": "one",
                "A-B": "dash",
                "RANDOM": "4",
                "SECONDS": "9",
                "PPID": "3",
            },
        },
        {"LC_ALL": "de_DE.ISO-8859-1", "LANG": "no_SUCH.LOCALE"},
    ],
    ids=["plain", "every-name", "locale"],
)
def test_a_job_sees_what_docker_run_shows(
    new_case: Callable[..., Case], shell: str, image_env: dict[str, str]
) -> None:
    case = new_case(shell, **image_env)
    env = {"WORD": "a  b", "QUOTES": "'\"`$1\\", "LINES_": "one\n\ntwo\n", "EMPTY": ""}
    limits = {"memory_limit_bytes": 64 << 20, "cpu_limit": 0.5}
    plain = case.plain(LOOK, env, mem_limit="64m", memswap_limit="64m", nano_cpus=500_000_000)
    for way in WAYS:
        handed_over = case.handed_over(LOOK, env, way, **limits)
        for ours, theirs in zip(handed_over[:2], plain[:2], strict=True):
            assert ours.decode().splitlines() == theirs.decode().splitlines(), way
        assert handed_over[2] == plain[2] == 127


@pytest.mark.parametrize("shell", SHELLS)
def test_a_user_without_rights_can_take_a_command(
    runner: DockerRunner, engine: docker.APIClient, new_case: Callable[..., Case], shell: str
) -> None:
    case = new_case(shell)
    [base] = [engine.create_container(case.image, command=["true"], user="1000:1000")["Id"]]
    case.image = engine.commit(base)["Id"]
    engine.remove_container(base)
    try:
        for way in WAYS:
            ended = case.handed_over("id -u; id -g; echo > /dev/null; exit 4", way=way)
            assert ended == (b"1000\n1000\n", b"", 4)
    finally:
        case.end()
        engine.remove_image(case.image)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("image_env", [{}, {"LC_ALL": "C.UTF-8", "TMOUT": "1"}], ids=["C", "UTF-8"])
def test_every_character_is_transmitted(
    new_case: Callable[..., Case], shell: str, image_env: dict[str, str]
) -> None:
    characters = "".join(chr(code) for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000)
    # All of the first plane, whose bytes come in every combination, and some of each other page.
    some = characters[:0xF7FF] + characters[0xF7FF::61]
    values = [some[start : start + 8000] for start in range(0, len(some), 8000)]
    env = {f"V{number}": value for number, value in enumerate(values)}
    stdout, _, _ = new_case(shell, **image_env).handed_over("cat /proc/$$/environ", env)
    received = dict(entry.split(b"=", 1) for entry in stdout.split(b"\0") if b"=" in entry)
    assert {name: received.get(name.encode()) for name in env} == {
        name: value.encode() for name, value in env.items()
    }


@pytest.mark.parametrize("shell", SHELLS)
def test_line_numbers_stay_those_of_the_script_after_100_kib_of_newlines(
    new_case: Callable[..., Case], shell: str
) -> None:
    case = new_case(shell)
    command = "\n" * (100 << 10) + "echo 'it''s' $LINENO\nnosuch-command"
    handed_over = case.handed_over(command, {"NEWLINES": "\n" * (32 << 10)})
    assert handed_over == case.plain(command, {"NEWLINES": "\n" * (32 << 10)})
    assert handed_over[2] == 127
    if shell != "busybox":
        assert b"102402" in handed_over[1]


@pytest.mark.parametrize("shell", SHELLS)
def test_variable_names_unfit_for_a_shell_are_in_the_configuration(
    new_case: Callable[..., Case], shell: str
) -> None:
    case = new_case(shell)
    env = {"UID": "12", "PPID": "34", "A-B": "5", "1ST": "6", "OPTIND": "2", "BASHOPTS": "", "SHLVL": "3"}
    assert not any(map(is_handed_over, env))
    # As a child gets it: a shell may hide some of its own variables from its children.
    handed_over, plain = case.handed_over("env | sort", env), case.plain("env | sort", env)
    ours, theirs = (
        [line for line in stdout.splitlines() if not line.startswith((b"HOSTNAME=", b"_="))]
        for stdout, _, _ in (handed_over, plain)
    )
    assert ours == theirs
    assert b"UID=12" in ours
    assert handed_over[2] == plain[2] == 0


def test_neither_variables_nor_secrets_are_in_the_configuration_or_in_arguments(
    runner: DockerRunner, engine: docker.APIClient, new_case: Callable[..., Case]
) -> None:
    case = new_case("busybox")
    secret = uuid.uuid4().hex
    spec = case.spec("echo begun; sleep 60", {"TOKEN": secret})
    container_id, output, started = case.waiting(spec)
    output.hand_over(spec, started)
    acknowledged(output)
    while not output.read(10):
        pass
    assert secret not in json.dumps(engine.inspect_container(container_id))
    assert secret not in json.dumps(engine.top(container_id))
    processes = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes()
        except OSError:
            continue
        processes += b"sleep\x0060" in arguments
        assert secret.encode() not in arguments
    assert processes or os.environ.get("DOCKER_HOST")
    output.close()
    runner.signal(container_id, "KILL")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("cut", [0, 1, 30, -40, -1], ids=str)
def test_partial_handover_runs_nothing(new_case: Callable[..., Case], shell: str, cut: int) -> None:
    case = new_case(shell)
    spec = case.spec("echo ran; touch /job/artifacts/ran", {"WORD": "a"})
    container_id, output, started = case.waiting(spec)
    output.hand_over(spec, started)
    sent: Any = output
    whole = b"".join(map(bytes, sent._unsent))
    sent._unsent.clear()
    sent._unsent.append(memoryview(whole[:cut]))
    if cut:
        assert output.read(5) == []
    output.close()
    ended = case.runner.wait(container_id, 10, started.at)
    assert ended == Exit(NOT_HANDED_OVER, oom_killed=False)
    assert not case.runner.is_acknowledged(container_id)
    assert case.runner.artifacts(container_id) is None


@pytest.mark.parametrize("shell", SHELLS)
def test_complete_handover_runs_although_the_sender_is_gone(
    new_case: Callable[..., Case], shell: str
) -> None:
    case = new_case(shell)
    spec = case.spec("sleep 0.5; echo ran; exit 3", {})
    container_id, output, started = case.waiting(spec)
    output.hand_over(spec, started)
    while getattr(output, "_unsent"):  # noqa: B009  # no part of the protocol
        assert output.read(5) is not None
    output.close()
    wait_until(lambda: case.runner.wait(container_id, 1, started.at) is not None, 20, "the command ends")
    assert case.runner.wait(container_id, 1, started.at) == Exit(3, oom_killed=False)
    assert case.runner.is_acknowledged(container_id)
    assert read_all(case.runner.reread(container_id)) == {1: b"ran\n", 2: b""}


@pytest.mark.parametrize("again", ["start", "restart"])
def test_restarted_container_waits_and_runs_nothing(
    engine: docker.APIClient, new_case: Callable[..., Case], again: str
) -> None:
    case = new_case("busybox")
    spec = case.spec("echo ran; exit 3" if again == "start" else "echo ran; sleep 60", {})
    container_id, output, started = case.waiting(spec)
    output.hand_over(spec, started)
    acknowledged(output)
    if again == "start":
        read_all(output)
        assert case.runner.wait(container_id, 10, started.at) == Exit(3, oom_killed=False)
        engine.start(container_id)
    else:
        engine.restart(container_id, timeout=1)
    with pytest.raises(ContainerRestarted):
        case.runner.wait(container_id, 0.5, started.at)
    assert case.runner.wait(container_id, 0.5, None) is None
    assert engine.inspect_container(container_id)["State"]["Running"]
    output.close()
    case.runner.signal(container_id, "KILL")
    assert read_all(case.runner.reread(container_id))[1] == b"ran\n"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("signal", "way"), [("TERM", "warm"), ("KILL", "cold")])
def test_signal_before_the_end_mark_runs_nothing(
    new_case: Callable[..., Case], shell: str, signal: Any, way: str
) -> None:
    case = new_case(shell)
    container_id, output, started = case.waiting(case.spec("echo ran", {}), way)

    # Sent again until the container's init is ready to pass it on.
    def has_ended() -> bool:
        case.runner.signal(container_id, signal)
        return case.runner.wait(container_id, 0.2, started.at) is not None

    wait_until(has_ended, 20, "the container ends")
    ended = case.runner.wait(container_id, 1, started.at)
    assert ended is not None
    assert ended.exit_code == {"TERM": 143, "KILL": 137}[signal]
    assert not case.runner.is_acknowledged(container_id)
    assert read_all(output) == {1: b"", 2: b""}
    assert not output.acknowledged


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shell", SHELLS)
def test_signal_after_the_end_mark_lets_the_command_clean_up(
    new_case: Callable[..., Case], shell: str, way: str
) -> None:
    case = new_case(shell)
    child = 'sh -c "trap \\"echo cleaned; exit\\" TERM; echo ready; while :; do sleep 0.1; done"'
    spec = case.spec(f"{child}", {})
    container_id, output, started = case.waiting(spec, way)
    output.hand_over(spec, started)
    acknowledged(output)
    while not output.read(10):
        pass
    case.runner.signal(container_id, "TERM")
    assert read_all(output)[1] == b"cleaned\n"
    assert case.runner.wait(container_id, 10, started.at) == Exit(143, oom_killed=False)
    assert case.runner.is_acknowledged(container_id)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_too_little_memory_for_the_hand_over_runs_nothing(new_case: Callable[..., Case], shell: str) -> None:
    case = new_case(shell)
    env = {f"V{number}": "x" * (32 << 10) for number in range(600)}
    spec = case.spec("echo ran", env, memory_limit_bytes=6 << 20)
    container_id, output, started = case.waiting(spec)
    output.hand_over(spec, started)
    assert read_all(output) == {1: b"", 2: b""}
    ended = case.runner.wait(container_id, 10, started.at)
    assert ended is not None
    assert ended.exit_code == 137
    assert not case.runner.is_acknowledged(container_id)


def test_output_of_a_shell_that_reads_no_command_is_readable(new_case: Callable[..., Case]) -> None:
    # It ends where such a variable of its environment is not a number.
    case = new_case("dash", OPTIND="word")
    spec = case.spec("echo ran", {})
    container_id, output, started = case.waiting(spec)
    output.hand_over(spec, started)
    read_all(output)
    assert not output.acknowledged
    assert b"Illegal number: word" in output.launcher_output
    ended = case.runner.wait(container_id, 10, started.at)
    assert ended is not None
    assert ended.exit_code not in (0, NOT_HANDED_OVER)


def test_the_commands_own_acknowledgement_is_output(new_case: Callable[..., Case]) -> None:
    text = ACKNOWLEDGEMENT.decode().strip()
    assert new_case("busybox").handed_over(f"echo '{text}'; echo '{text}' >&2") == (
        ACKNOWLEDGEMENT,
        ACKNOWLEDGEMENT,
        0,
    )


def test_init_signals_the_whole_group_and_its_variable_is_hidden(
    new_case: Callable[..., Case],
) -> None:
    stdout, _, _ = new_case("busybox").handed_over("env")
    assert not any(name.encode() in stdout for name in INIT_ENV)


@given(st.binary(max_size=60), st.binary(max_size=60), st.lists(st.integers(0, 200), max_size=6))
def test_acknowledgement_is_recognized_for_any_chunking(before: bytes, after: bytes, cuts: list[int]) -> None:
    stream = before + ACKNOWLEDGEMENT + after
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    acknowledgement = AcknowledgementFilter()
    output = b"".join(acknowledgement.feed(stream[begin:end]) for begin, end in itertools.pairwise(edges))
    # The text around it may have one, too.
    assert (acknowledgement.is_complete, output) == (True, stream.partition(ACKNOWLEDGEMENT)[2])


def test_only_the_end_of_earlier_output_is_held_in_memory() -> None:
    acknowledgement = AcknowledgementFilter()
    for _ in range(100):
        assert acknowledgement.feed(b"x" * 10_000) == b""
    assert len(acknowledgement.held) == AcknowledgementFilter.MAX_HELD_BYTES
