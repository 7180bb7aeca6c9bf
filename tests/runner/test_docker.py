"""The Docker runner on a real engine: a container's whole life, and what can go wrong in it."""

import contextlib
import errno
import io
import itertools
import os
import struct
import subprocess
import tarfile
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import docker
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactorcide.domain.errors import EngineUnavailable, InfrastructureError, JobFailed
from reactorcide.runner import ContainerGone, ContainerSpec, Exit, ImageMissing, Output, OutputChunk
from reactorcide.runner.docker import DockerRunner, container_name
from reactorcide.runner.docker.archives import open_archive
from reactorcide.runner.docker.errors import one_line
from reactorcide.runner.docker.images import _pull_failure
from reactorcide.runner.docker.networks import _NO_CROSS_TALK
from reactorcide.runner.docker.output import Frames
from tests.support.descriptors import few_descriptors, open_descriptors
from tests.support.image import Images
from tests.support.registry import Registry
from tests.support.waiting import wait_until

INSTANCE = f"test-{uuid.uuid4()}"
SPECS: dict[str, ContainerSpec] = {}
"""The spec of each container, by its id."""


@pytest.fixture(scope="module")
def runner(engine: docker.APIClient) -> Iterator[DockerRunner]:
    runner = DockerRunner({})
    yield runner
    containers = runner.list(INSTANCE)
    for container in containers:
        runner.remove(container.container_id)
    runner.close()
    assert containers == []


@pytest.fixture
def spec(images: Images) -> ContainerSpec:
    """A container that does nothing."""
    return ContainerSpec(
        instance_id=INSTANCE,
        job_id=str(uuid.uuid4()),
        attempt=1,
        image=images.default,
        command="true",
        env={"WORD": "a b"},
        working_dir="/job/src",
        cpu_limit=None,
        memory_limit_bytes=None,
        pids_limit=64,
    )


@pytest.fixture
def create(runner: DockerRunner, spec: ContainerSpec) -> Iterator[Callable[..., str]]:
    """Makes a container that goes with the test."""
    container_ids: list[str] = []

    def make(command: str = "true", **changes: Any) -> str:
        changed = replace(spec, command=command, job_id=str(uuid.uuid4()), **changes)
        container_ids.append(runner.create(changed))
        SPECS[container_ids[-1]] = changed
        return container_ids[-1]

    yield make
    for container_id in container_ids:
        runner.remove(container_id)


def text(printed: list[OutputChunk]) -> bytes:
    """Return what was printed, of both streams."""
    return b"".join(data for _, data in printed)


def read_all(output: Output) -> bytes:
    """Return everything up to the end, which must come."""
    pieces: list[bytes] = []
    deadline = time.monotonic() + 30
    while (data := output.read(1)) is not None:
        assert time.monotonic() < deadline, "the output does not end"
        pieces.append(text(data))
    output.close()
    return b"".join(pieces)


def read_until(output: Output, text: bytes) -> None:
    """Read until that was printed."""
    content = b""
    while text not in content:
        printed = output.read(10)
        assert printed is not None, f"it ended after {content!r}"
        content += b"".join(data for _, data in printed)


def started(runner: DockerRunner, container_id: str) -> Output:
    """Start a container, hand its command over, and return its output once the command runs."""
    output = runner.attach(container_id)
    output.hand_over(SPECS[container_id], runner.start(container_id))
    deadline = time.monotonic() + 30
    while not output.acknowledged:
        assert output.read(1) is not None, output.launcher_output
        assert time.monotonic() < deadline, "the command is not acknowledged"
    return output


def run(runner: DockerRunner, container_id: str) -> tuple[bytes, Exit | None]:
    """Run a container to its end; return what it printed and how it ended."""
    return read_all(started(runner, container_id)), runner.wait(container_id, 10, None)


frame = st.one_of(
    st.tuples(st.just(1), st.lists(st.sampled_from(b"ab\n"), max_size=40).map(bytes)),
    st.tuples(st.just(2), st.lists(st.sampled_from(b"xy\n"), max_size=40).map(bytes)),
)


@given(st.lists(frame), st.lists(st.integers(0, 400)))
def test_frames_are_joined_for_any_chunking(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(struct.pack(">BxxxL", number, len(data)) + data for number, data in frames)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    parser = Frames()
    parts = [parser.payload(stream[begin:end]) for begin, end in itertools.pairwise(edges)]
    assert all(data for part in parts for _, data in part)
    for number in (1, 2):
        own = b"".join(data for stream_number, data in frames if stream_number == number)
        assert b"".join(data for part in parts for came_of, data in part if came_of == number) == own
    # The order of the two streams among each other holds, too.
    assert b"".join(map(text, parts)) == b"".join(data for _, data in frames)


def test_files_are_copied_unchanged(
    runner: DockerRunner, engine: docker.APIClient, create: Callable[..., str]
) -> None:
    # Packed by the engine they would come at a fraction of the speed.
    response = open_archive(engine, create(), "/etc/passwd")
    assert response is not None
    with response:
        assert "Content-Encoding" not in response.headers


def test_container_output_and_exit_code_are_read(runner: DockerRunner, create: Callable[..., str]) -> None:
    assert run(runner, create("echo $WORD; pwd; exit 7")) == (b"a b\n/job/src\n", Exit(7, oom_killed=False))


@pytest.mark.parametrize("attempt", range(10))
def test_short_output_is_complete(runner: DockerRunner, create: Callable[..., str], attempt: int) -> None:
    printed, _ = run(runner, create("seq 3000; seq 3000 >&2"))
    assert len(printed) == 2 * len("".join(f"{i}\n" for i in range(1, 3001)))


def test_engines_copy_equals_the_output(runner: DockerRunner, create: Callable[..., str]) -> None:
    container_id = create("seq 100000")
    printed, _ = run(runner, container_id)
    assert read_all(runner.reread(container_id)) == printed == b"".join(b"%d\n" % i for i in range(1, 100001))


def test_many_short_lines_of_the_engines_copy_are_read_together(
    runner: DockerRunner, create: Callable[..., str]
) -> None:
    container_id = create("yes | head -c 40000")
    run(runner, container_id)
    output: Any = runner.reread(container_id)
    # All has come: 20,000 lines, each in a chunk of its own.
    wait_until(lambda: output._ended, 20, "the copy has come")
    # The first call looks for the acknowledgement.
    assert output.read(20) == []
    printed = output.read(20)
    # The engine may write the acknowledgement on standard error between any two of the lines.
    assert len(printed) <= 2
    assert b"".join(data for _, data in printed) == b"y\n" * 20_000
    assert output.read(20) is None
    output.close()


def test_the_engines_copy_is_followed_to_the_end(runner: DockerRunner, create: Callable[..., str]) -> None:
    container_id = create("echo early; sleep 1; echo late")
    started(runner, container_id).close()
    assert read_all(runner.reread(container_id)) == b"early\nlate\n"


@pytest.mark.parametrize("opened", ["attach", "reread"])
def test_reader_can_be_interrupted_and_closed(
    runner: DockerRunner, create: Callable[..., str], opened: str
) -> None:
    container_id = create("sleep 60")
    output: Any = started(runner, container_id)
    if opened == "reread":
        output.close()
        output = runner.reread(container_id)
        # The acknowledgement is no output, but ends a read.
        while not output.acknowledged:
            assert output.read(10) == []
    results: list[list[OutputChunk] | None] = []
    reader = threading.Thread(target=lambda: results.append(output.read(60)))
    reader.start()
    output.wake()
    reader.join(5)
    assert results == [[]]
    output.close()
    output.close()
    # From 3.13 on Python complains on stderr where one that is half closed is collected.
    assert output._response.raw._fp.isclosed()


def test_copied_files_belong_to_the_user_of_the_image(
    runner: DockerRunner, create: Callable[..., str], images: Images
) -> None:
    container_id = create("cat file; stat -c %u:%g file; id -u", image=images.user_1000)
    uid, gid = runner.owner(container_id)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("job/src/file")
        member.size, member.uid, member.gid = 6, uid, gid
        archive.addfile(member, io.BytesIO(b"hello\n"))
    runner.put(container_id, iter([buffer.getvalue()]))
    assert run(runner, container_id)[0] == b"hello\n1000:1000\n1000\n"


@pytest.mark.parametrize(
    ("user", "owner"),
    [
        ("", (0, 0)),
        ("root", (0, 0)),
        ("0:5", (0, 5)),
        ("1000", (1000, 1000)),
        ("builder", (1000, 1000)),
        ("builder:5", (1000, 5)),
        ("1234", (1234, 0)),
        ("1234:99", (1234, 99)),
    ],
)
def test_the_owner_is_looked_up_in_the_image(
    runner: DockerRunner, engine: docker.APIClient, images: Images, user: str, owner: tuple[int, int]
) -> None:
    container = engine.create_container(images.default, command=["true"], user=user)
    try:
        assert runner.owner(container["Id"]) == owner
    finally:
        engine.remove_container(container["Id"], v=True)


@pytest.fixture
def image_with(engine: docker.APIClient, images: Images) -> Iterator[Callable[..., str]]:
    """A factory of images with other files, which go with the test."""
    image_ids: list[str] = []

    def make(
        files: dict[str, bytes],
        links: dict[str, str] | None = None,
        fifos: Sequence[str] = (),
        user: str | None = None,
    ) -> str:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            for name, target in (links or {}).items():
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, target
                archive.addfile(member)
            for name in fifos:
                member = tarfile.TarInfo(name)
                member.type = tarfile.FIFOTYPE
                archive.addfile(member)
        container = engine.create_container(images.default, command=["true"], user=user)["Id"]
        engine.put_archive(container, "/", buffer.getvalue())
        image_ids.append(str(engine.commit(container)["Id"]))
        engine.remove_container(container)
        return image_ids[-1]

    yield make
    for image in image_ids:
        engine.remove_image(image, force=True)


def owner_of(runner: DockerRunner, engine: docker.APIClient, image: str, user: str) -> tuple[int, int]:
    container = engine.create_container(image, command=["true"], user=user)["Id"]
    try:
        return runner.owner(container)
    finally:
        engine.remove_container(container, v=True)


def test_the_owner_is_looked_up_through_links(
    runner: DockerRunner, engine: docker.APIClient, image_with: Callable[..., str]
) -> None:
    image = image_with(
        {"store/passwd": b"nixer:x:33:44::/:/bin/sh\n", "store/group": b"crew:x:55:\n"},
        {"etc/passwd": "../link", "link": "/store/passwd", "etc/group": "/store/group"},
    )
    assert owner_of(runner, engine, image, "nixer") == (33, 44)
    assert owner_of(runner, engine, image, "nixer:crew") == (33, 55)


@pytest.mark.parametrize(
    ("user", "file"), [("nobody-here", "/etc/passwd"), ("builder:no-group", "/etc/group")]
)
def test_unknown_owner_is_a_job_error(
    runner: DockerRunner, engine: docker.APIClient, images: Images, user: str, file: str
) -> None:
    with pytest.raises(JobFailed, match=f"is not in its {file}"):
        owner_of(runner, engine, images.default, user)


def test_passwd_file_is_read_up_to_a_limit(
    runner: DockerRunner, engine: docker.APIClient, image_with: Callable[..., str]
) -> None:
    image = image_with({"etc/passwd": b"x" * ((1 << 20) + 1)})
    with pytest.raises(JobFailed, match="larger than 1 MiB"):
        owner_of(runner, engine, image, "builder")


@pytest.mark.parametrize("filler", [b"\n", b":"])
def test_passwd_file_takes_no_more_memory_than_its_size(
    runner: DockerRunner, engine: docker.APIClient, image_with: Callable[..., str], filler: bytes
) -> None:
    filling = filler * ((1 << 20) - 100)
    users, groups = filling + b"\nlast:x:33:44::/:/bin/sh\r\n", filling + b"\nlast:x:55:\n"
    image = image_with({"etc/passwd": users, "etc/group": groups})
    tracemalloc.start()
    try:
        assert owner_of(runner, engine, image, "last:last") == (33, 55)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_passwd_link_loop_is_a_job_error(
    runner: DockerRunner, engine: docker.APIClient, image_with: Callable[..., str]
) -> None:
    image = image_with({}, {"etc/passwd": "passwd"})
    with pytest.raises(JobFailed, match="too many links") as failed:
        owner_of(runner, engine, image, "builder")
    # Where that is on the engine's host is no matter of a job.
    assert "/var/lib" not in str(failed.value)


def test_passwd_that_is_not_a_file_does_not_block(
    runner: DockerRunner, engine: docker.APIClient, image_with: Callable[..., str]
) -> None:
    image = image_with({}, fifos=["etc/passwd"])
    with pytest.raises(JobFailed, match="/etc/passwd of the image is not a regular file"):
        owner_of(runner, engine, image, "builder")


@pytest.mark.parametrize("call", ["artifacts", "owner"])
def test_missing_path_during_a_removal_is_not_a_job_error(
    runner: DockerRunner, create: Callable[..., str], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    container_id = create()
    # Of a removal the engine shows this for a moment.
    api: Any = runner._client.api()
    details = api.inspect_container(container_id)
    details["State"] |= {"Status": "removing"}
    details["Config"]["User"] = "builder"
    runner.remove(container_id)
    monkeypatch.setattr(api, "inspect_container", lambda _: details)
    with pytest.raises(ContainerGone):
        getattr(runner, call)(container_id)


def test_user_unknown_to_the_engine_is_a_job_error(
    runner: DockerRunner, engine: docker.APIClient, images: Images, create: Callable[..., str]
) -> None:
    base = engine.create_container(images.default, command=["true"], user="nobody-here")["Id"]
    image = engine.commit(base)["Id"]
    engine.remove_container(base)
    try:
        container_id = create(image=image)
        # The engine answers 500.
        with pytest.raises(JobFailed, match="unable to find user nobody-here"):
            runner.start(container_id)
        runner.remove(container_id)
    finally:
        engine.remove_image(image)


@pytest.mark.parametrize(
    ("links", "user", "problem"),
    [
        ({}, "99999999999:1", "uids and gids must be in range"),
        ({"job/artifacts": "/proc"}, None, "cannot be mounted because it is not of type proc"),
        ({"job": "/proc"}, None, "cannot be mounted because it is inside /proc"),
        ({"job/artifacts": "/dev/null"}, None, "error reopening /dev/null inside container"),
    ],
)
def test_image_that_cannot_start_is_a_job_error(
    runner: DockerRunner,
    image_with: Callable[..., str],
    create: Callable[..., str],
    links: dict[str, str],
    user: str | None,
    problem: str,
) -> None:
    container_id = create(image=image_with({}, links, user=user))
    with pytest.raises(JobFailed, match=problem) as failed:
        runner.start(container_id)
    assert "/var/lib" not in str(failed.value)
    runner.remove(container_id)


ID = "d1caf264d06c7d89c882a02be5ce09b293e3fe89746e1b6209527bfe249a01a5"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            f'error mounting "/var/lib/docker/volumes/{ID}/_data" to rootfs at "/job": no',
            'error mounting "" to rootfs at "/job": no',
        ),
        (f"mount /srv/my-docker/overlay2/{ID}/merged/etc/passwd: no", "mount /etc/passwd: no"),
        (f"open '/var/lib/docker/containers/{ID}/hosts': no", "open '': no"),
        (
            f"lowerdir=/var/lib/docker/overlay2/l/AB:/x/overlay2/{ID}/diff,upperdir=/y: no",
            "lowerdir=,upperdir=/y: no",
        ),
        ("/job/volumes/_database is kept", "/job/volumes/_database is kept"),
    ],
)
def test_messages_do_not_contain_paths_of_the_engine(message: str, expected: str) -> None:
    assert one_line(message) == expected


def test_long_error_text_is_classified_quickly() -> None:
    began = time.process_time()
    assert len(one_line("/volumes" * 100_000)) == 500
    assert time.process_time() - began < 1


def test_file_in_place_of_a_directory_is_a_job_error(create: Callable[..., str]) -> None:
    for working_dir in ("/etc/passwd", "/etc/passwd/below"):
        with pytest.raises(JobFailed, match="not a directory"):
            create(working_dir=working_dir)


def test_container_name_in_use_is_not_a_job_error(runner: DockerRunner, spec: ContainerSpec) -> None:
    container_id = runner.create(spec)
    with pytest.raises(EngineUnavailable, match="already in use"):
        runner.create(spec)
    runner.remove(container_id)


def test_container_of_a_committed_job_image_has_its_labels_but_not_its_name(
    runner: DockerRunner, engine: docker.APIClient, create: Callable[..., str]
) -> None:
    container_id = create()
    image = engine.commit(container_id)["Id"]
    somebodys = engine.create_container(image)["Id"]
    try:
        named = {item.container_id: item.is_named for item in runner.list(INSTANCE)}
        assert (named[container_id], named[somebodys]) == (True, False)
    finally:
        engine.remove_container(somebodys, v=True)
        runner.remove(container_id)
        engine.remove_image(image, force=True)


def test_container_with_incomplete_labels_is_ignored(
    runner: DockerRunner, engine: docker.APIClient, images: Images
) -> None:
    labels = {"reactorcide.instance": INSTANCE, "reactorcide.job": "x", "reactorcide.attempt": "one"}
    containers = [
        engine.create_container(
            images.default, command=["true"], labels={name: labels[name] for name in list(labels)[:count]}
        )
        for count in (1, 2, 3)
    ]
    try:
        assert {item.container_id for item in runner.list(INSTANCE)}.isdisjoint(
            one["Id"] for one in containers
        )
    finally:
        for one in containers:
            engine.remove_container(one["Id"])


def test_artifacts_are_read_from_a_moved_directory(runner: DockerRunner, create: Callable[..., str]) -> None:
    container_id = create("touch /job/artifacts/file; mv /job /elsewhere", working_dir="/")
    assert run(runner, container_id) == (b"", Exit(0, oom_killed=False))
    assert artifact_names(runner, container_id) == ["artifacts", "artifacts/file"]


def artifact_names(runner: DockerRunner, container_id: str) -> list[str] | None:
    """Return what the artifacts' tar holds, ``None`` where there is none."""
    chunks = runner.artifacts(container_id)
    if chunks is None:
        return None
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        return sorted(archive.getnames())


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("true", None),
        ("ls /job/artifacts", None),
        ("touch /job/artifacts/file", ["artifacts", "artifacts/file"]),
        ("mkdir /job/artifacts/d; touch /job/artifacts/d/f", ["artifacts", "artifacts/d", "artifacts/d/f"]),
        (
            "touch /job/artifacts/file; touch -d '2001-01-01 00:00' /job/artifacts",
            ["artifacts", "artifacts/file"],
        ),
    ],
)
@pytest.mark.parametrize("engine_is", ["here", "elsewhere"])
def test_artifacts_are_read_if_there_are_any(
    runner: DockerRunner,
    create: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    engine_is: str,
    command: str,
    names: list[str] | None,
) -> None:
    if engine_is == "elsewhere":
        stat = os.stat

        def no_volumes(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
            if "/volumes/" in str(path):
                raise FileNotFoundError(errno.ENOENT, "it is on another host", path)
            return stat(path, *args, **kwargs)

        monkeypatch.setattr(os, "stat", no_volumes)
    container_id = create(command)
    run(runner, container_id)
    assert artifact_names(runner, container_id) == names


def test_artifacts_are_read_if_the_command_has_restored_the_times_of_their_directory(
    runner: DockerRunner, create: Callable[..., str]
) -> None:
    restore = "touch -r /tmp/times /job/artifacts"
    container_id = create(f"touch -r /job/artifacts /tmp/times; touch /job/artifacts/file; {restore}")
    run(runner, container_id)
    assert artifact_names(runner, container_id) == ["artifacts", "artifacts/file"]


def test_files_of_the_image_are_not_artifacts(
    runner: DockerRunner, engine: docker.APIClient, create: Callable[..., str], images: Images
) -> None:
    container = engine.create_container(
        images.default, command=["-c", "mkdir -p /job/artifacts/old"], entrypoint="sh"
    )
    engine.start(container["Id"])
    engine.wait(container["Id"])
    image = engine.commit(container["Id"])["Id"]
    engine.remove_container(container["Id"], v=True)
    try:
        container_id = create("ls -A /job/artifacts", image=image)
        assert run(runner, container_id)[0] == b""
        runner.remove(container_id)
    finally:
        engine.remove_image(image, force=True)


def test_a_container_is_hardened_and_limited(
    runner: DockerRunner, engine: docker.APIClient, create: Callable[..., str]
) -> None:
    details = engine.inspect_container(create(cpu_limit=0.5, memory_limit_bytes=64 << 20))
    host = details["HostConfig"]
    assert host["Init"] is True
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["CapDrop"] == ["ALL"]
    assert set(host["CapAdd"]) == {
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE"),
        *("SETFCAP", "SETGID", "SETUID"),
    }
    assert not host["Privileged"]
    assert not host["Binds"]
    assert host["PidsLimit"] == 64
    assert host["NanoCpus"] == 500_000_000
    assert (host["Memory"], host["MemorySwap"]) == (64 << 20, 64 << 20)
    assert host["LogConfig"]["Type"] == "json-file"
    # So large that nothing is ever rotated away; one file, for a second one would mean rotation.
    assert host["LogConfig"]["Config"] == {"max-size": "8192t"}
    assert details["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    assert [mount["Type"] for mount in details["Mounts"]] == ["volume"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into the files of a container")
@pytest.mark.parametrize(
    ("command", "expected_mib"),
    [
        ("exec 3>/tmp/f; rm /tmp/f; head -c 8388608 /dev/zero >&3", 8),
        ("exec 3>/job/artifacts/f; rm /job/artifacts/f; head -c 8388608 /dev/zero >&3", 8),
        # Held by another process than the first, and by two of them once.
        ("(exec 3>/tmp/f; rm /tmp/f; head -c 8388608 /dev/zero >&3; sleep 60) & sleep 2", 8),
        ("head -c 8388608 /dev/zero >>/etc/hosts", 8),
        ("head -c 8388608 /dev/zero >>/etc/resolv.conf", 8),
        ("head -c 8388608 /dev/zero >/etc/hostname", 8),
        # A hole counts by its length in the layer, of which the engine tells, and by its blocks in a volume.
        ("truncate -s 8388608 /tmp/hole /job/artifacts/hole", 8),
        # That is memory, and no disk.
        ("exec 3>/dev/shm/f; rm /dev/shm/f; head -c 8388608 /dev/zero >&3", 0),
    ],
)
def test_unnamed_files_and_engine_files_count(
    runner: DockerRunner, create: Callable[..., str], command: str, expected_mib: int
) -> None:
    container_id = create(f"{command}; echo done; sleep 60")
    output = started(runner, container_id)
    read_until(output, b"done")
    output.close()
    used_bytes = runner.disk_bytes(container_id)
    assert used_bytes is not None
    assert expected_mib << 20 <= used_bytes < (expected_mib + 1) << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into the files of a container")
def test_size_of_the_engines_copy_is_measured(runner: DockerRunner, create: Callable[..., str]) -> None:
    container_id = create("head -c 1048576 /dev/zero; echo; echo done; sleep 60")
    output = started(runner, container_id)
    read_until(output, b"done")
    output.close()
    # The engine writes six characters for each NUL, and writes its copy a little later than the connection.
    wait_until(lambda: (runner.copy_bytes(container_id) or 0) >= 6 << 20, 10, "the copy is written")
    assert (runner.copy_bytes(container_id) or 0) < 7 << 20


def test_disk_usage_of_a_container_is_measured(
    runner: DockerRunner, create: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (
        "for place in /tmp /job/src /job/artifacts; do dd if=/dev/zero of=$place/file bs=1M count=3; done"
    )
    container_id = create(f"{command}; echo done; sleep 60")
    assert runner.disk_bytes(container_id) is None
    output = started(runner, container_id)
    read_until(output, b"done")
    output.close()
    used_bytes = runner.disk_bytes(container_id)
    assert used_bytes is not None
    # Only root may look into the volume.
    expected_mib = 9 if os.geteuid() == 0 else 6
    assert expected_mib << 20 <= used_bytes < (expected_mib + 1) << 20
    # So many files that they cannot be counted do not make the rest go uncounted.
    monkeypatch.setattr("reactorcide.runner.docker.disk._DU_TIMEOUT_S", 0)
    without_volume_bytes = runner.disk_bytes(container_id)
    assert without_volume_bytes is not None
    assert 6 << 20 <= without_volume_bytes < 7 << 20
    runner.signal(container_id, "KILL")
    assert runner.wait(container_id, 10, None) is not None
    assert runner.disk_bytes(container_id) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into the files of a container")
def test_blocks_beyond_the_end_of_a_file_count(
    runner: DockerRunner, engine: docker.APIClient, create: Callable[..., str]
) -> None:
    container_id = create(": >/tmp/reserved; echo done; sleep 60")
    output = started(runner, container_id)
    read_until(output, b"done")
    output.close()
    process = engine.inspect_container(container_id)["State"]["Pid"]
    # Of this host, for the image has no program that can do it.
    reserve = ["fallocate", "--keep-size", "--length", "8MiB", f"/proc/{process}/root/tmp/reserved"]
    subprocess.run(reserve, check=True)
    used_bytes = runner.disk_bytes(container_id)
    assert used_bytes is not None
    assert 8 << 20 <= used_bytes < 9 << 20


@pytest.fixture
def isolated_network(engine: docker.APIClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A network of a test's own in place of the one that all services share."""
    name = f"test-{uuid.uuid4()}"
    options = _NO_CROSS_TALK | {"com.docker.network.bridge.name": name[:15]}
    monkeypatch.setattr("reactorcide.runner.docker.networks.ISOLATED", name)
    monkeypatch.setattr("reactorcide.runner.docker.networks._NO_CROSS_TALK", options)
    yield name
    if engine.networks(names=[name]):
        engine.remove_network(name)


def test_concurrent_services_create_one_isolated_network(
    engine: docker.APIClient, spec: ContainerSpec, isolated_network: str
) -> None:
    runners = [DockerRunner({}, network="isolated") for _ in range(5)]

    def create(runner: DockerRunner) -> str:
        while True:
            # Where another one is creating it at this moment, the job is tried again.
            with contextlib.suppress(EngineUnavailable):
                return runner.create(replace(spec, job_id=str(uuid.uuid4())))

    with ThreadPoolExecutor() as threads:
        container_ids = list(threads.map(create, runners))
    try:
        [network] = engine.networks(names=[isolated_network])
        assert network["Labels"] == {"reactorcide.network": "isolated"}
        SPECS[container_ids[0]] = spec
        assert run(runners[0], container_ids[0]) == (b"", Exit(0, oom_killed=False))
    finally:
        for runner, container_id in zip(runners, container_ids, strict=True):
            runner.remove(container_id)
            runner.close()


def test_missing_isolated_network_is_recreated(
    engine: docker.APIClient, spec: ContainerSpec, isolated_network: str
) -> None:
    runner = DockerRunner({}, network="isolated")
    container_ids = [runner.create(spec)]
    engine.remove_network(isolated_network)
    try:
        with pytest.raises(EngineUnavailable, match="created again"):
            runner.start(container_ids[0])
        container_ids.append(runner.create(replace(spec, attempt=2)))
        SPECS[container_ids[1]] = spec
        assert run(runner, container_ids[1]) == (b"", Exit(0, oom_killed=False))
    finally:
        for container_id in container_ids:
            runner.remove(container_id)
        runner.close()


def test_a_network_that_does_not_isolate_is_not_used(
    engine: docker.APIClient, spec: ContainerSpec, isolated_network: str
) -> None:
    engine.create_network(isolated_network)
    runner = DockerRunner({}, network="isolated")
    with pytest.raises(InfrastructureError, match="lets containers reach each other"):
        runner.create(spec)
    runner.close()


def test_granted_capabilities_work(runner: DockerRunner, create: Callable[..., str]) -> None:
    """As apt, su and a web server need it."""
    command = """
        touch file; chown 1000:1000 file; chmod 2755 file; stat -c %u:%a file
        su builder -c 'echo $$ >/tmp/pid; id -u; exec sleep 60' & su=$!
        until [ -s /tmp/pid ]; do usleep 20000; done
        kill $(cat /tmp/pid); wait $su || echo killed
        # Either side ends with what comes from the other: so the listening one has nothing to say.
        sleep 60 | nc -l -p 80 >heard &
        until echo hello | nc 127.0.0.1 80; do usleep 20000; done
        until grep hello heard; do usleep 20000; done
    """
    printed, ended = run(runner, create(command))
    assert set(printed.splitlines()) >= {b"1000:2755", b"1000", b"killed", b"hello"}
    assert ended == Exit(0, oom_killed=False)


def test_no_limits_means_unlimited(engine: docker.APIClient, create: Callable[..., str]) -> None:
    host = engine.inspect_container(create())["HostConfig"]
    assert (host["NanoCpus"], host["Memory"]) == (0, 0)


def test_a_container_is_found_by_its_labels(
    runner: DockerRunner, engine: docker.APIClient, spec: ContainerSpec
) -> None:
    container_id = runner.create(replace(spec, attempt=3))
    attempts = {item.container_id: (item.job_id, item.attempt) for item in runner.list(INSTANCE)}
    assert attempts[container_id] == (spec.job_id, 3)
    assert runner.list("another") == []
    assert engine.inspect_container(container_id)["Name"] == "/" + container_name(spec.job_id, 3)
    runner.remove(container_id)
    assert all(item.job_id != spec.job_id for item in runner.list(INSTANCE))


def test_a_removed_container_takes_its_volume_along(
    runner: DockerRunner, engine: docker.APIClient, create: Callable[..., str]
) -> None:
    container_id = create("sleep 60")
    runner.start(container_id)
    (mount,) = engine.inspect_container(container_id)["Mounts"]
    runner.remove(container_id)
    runner.remove(container_id)
    with pytest.raises(docker.errors.NotFound):
        engine.inspect_volume(mount["Name"])


def test_wait_for_a_running_container_ends_at_its_timeout(
    runner: DockerRunner, create: Callable[..., str]
) -> None:
    container_id = create("sleep 60")
    runner.start(container_id)
    assert runner.wait(container_id, 0.2, None) is None


def test_signals_reach_the_command(runner: DockerRunner, create: Callable[..., str]) -> None:
    terminated = create("echo begun; sleep 60")
    killed = create("trap '' TERM; echo begun; while :; do sleep 1; done")
    for container_id in (terminated, killed):
        output = started(runner, container_id)
        # The init process ignores what comes before it is ready.
        read_until(output, b"begun")
        output.close()
        runner.signal(container_id, "TERM")
    assert runner.wait(terminated, 10, None) == Exit(143, oom_killed=False)
    runner.signal(killed, "KILL")
    assert runner.wait(killed, 10, None) == Exit(137, oom_killed=False)
    # Over already: harmless.
    runner.signal(killed, "KILL")


def test_end_time_excludes_the_search_for_the_cause_of_a_kill(
    runner: DockerRunner, create: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactorcide.runner.docker.containers._OOM_PATIENCE_S", 1.0)
    container_id = create("sleep 60", memory_limit_bytes=64 << 20)
    started(runner, container_id).close()
    runner.signal(container_id, "KILL")
    ended = runner.wait(container_id, 10, None)
    assert ended == Exit(137, oom_killed=False)
    assert 1 <= time.monotonic() - ended.answered_at < 10


def test_an_exit_for_lack_of_memory_is_reported(runner: DockerRunner, create: Callable[..., str]) -> None:
    # The engine may miss the kernel's report of a container that ends at once, but not each time.
    exits = (run(runner, create("tail /dev/zero", memory_limit_bytes=16 << 20))[1] for _ in range(3))
    assert any(ended == Exit(137, oom_killed=True) for ended in exits)


def test_a_missing_image_is_reported(runner: DockerRunner, spec: ContainerSpec) -> None:
    with pytest.raises(ImageMissing):
        runner.create(replace(spec, image="127.0.0.1:1/nothing:latest"))


# As engines say it: with images of their own, and with those of containerd.
_DENIED = "pull access denied, repository does not exist or may require authorization"


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("manifest for x:1 not found: manifest unknown: manifest unknown", "image not found"),
        ("pull access denied for x, repository does not exist", "image not found"),
        (f"{_DENIED}: server message: insufficient_scope: authorization failed", "image not found"),
        ('Head "https://r.test/v2/x/manifests/1": no basic auth credentials', "may not be pulled"),
        (f"{_DENIED}: authorization failed: no basic auth credentials", "may not be pulled"),
        ("error from registry: denied", "may not be pulled"),
        ("dial tcp: lookup r.test: no such host", "is not here and could not be pulled"),
    ],
)
def test_pull_errors_are_explained(reason: str, sentence: str) -> None:
    assert sentence in str(_pull_failure("x:1", reason))


def test_refusal_of_the_engine_is_a_job_error(runner: DockerRunner, spec: ContainerSpec) -> None:
    with pytest.raises(JobFailed, match="lowercase"):
        runner.create(replace(spec, image="Not/An/Image"))


CALLS: dict[str, Callable[[DockerRunner, str], object]] = {
    "start": DockerRunner.start,
    "attach": DockerRunner.attach,
    "reread": DockerRunner.reread,
    "owner": DockerRunner.owner,
    "artifacts": DockerRunner.artifacts,
    "is_acknowledged": DockerRunner.is_acknowledged,
    "has_path": lambda runner, container_id: runner.has_path(container_id, "/x"),
    "read_file": lambda runner, container_id: runner.read_file(container_id, "/x", 1),
    "disk_bytes": DockerRunner.disk_bytes,
    "copy_bytes": DockerRunner.copy_bytes,
    "wait": lambda runner, container_id: runner.wait(container_id, 1, None),
    "put": lambda runner, container_id: runner.put(container_id, iter([bytes(1024)])),
}


@pytest.mark.parametrize("call", list(CALLS))
def test_a_missing_container_is_reported(runner: DockerRunner, create: Callable[..., str], call: str) -> None:
    container_id = create()
    runner.remove(container_id)
    with pytest.raises(ContainerGone):
        CALLS[call](runner, container_id)


def test_signals_and_removal_of_a_missing_container_do_nothing(
    runner: DockerRunner, create: Callable[..., str]
) -> None:
    container_id = create()
    runner.remove(container_id)
    runner.signal(container_id, "TERM")
    runner.remove(container_id)


def test_image_is_removed_unless_in_use(
    runner: DockerRunner,
    create: Callable[..., str],
    new_registry: Callable[..., Registry],
    engine: docker.APIClient,
    images: Images,
) -> None:
    image = new_registry().image
    image_id = runner.pull(image, lambda _: None, lambda: None)
    # Not the pulled image: that was removed, and another image has its name now.
    assert runner.remove_image(images.default, image_id)
    assert engine.images(images.default)

    container_id = create(image=image)
    assert not runner.remove_image(image, image_id)
    assert engine.images(image)
    runner.remove(container_id)
    name = image.removesuffix(":latest")
    engine.tag(image, name, "kept")
    assert runner.remove_image(image, image_id)
    assert engine.images(image) == []
    assert [item["Id"] for item in engine.images(f"{name}:kept")] == [image_id]
    engine.remove_image(f"{name}:kept")
    assert runner.remove_image(image, image_id)


@pytest.mark.parametrize("call", [*CALLS, "remove_image", "check", "list", "remove", "create", "pull"])
def test_an_unreachable_engine_is_reported(spec: ContainerSpec, call: str) -> None:
    away = DockerRunner({"DOCKER_HOST": "unix:///nonexistent/engine.sock"})
    others: dict[str, Callable[[], object]] = {
        "check": away.check,
        "list": lambda: away.list(INSTANCE),
        "remove": lambda: away.remove("0" * 64),
        "create": lambda: away.create(spec),
        "remove_image": lambda: away.remove_image(spec.image, "sha256:0"),
        "pull": lambda: away.pull(spec.image, lambda _: None, lambda: None),
    }
    with pytest.raises(EngineUnavailable):
        others[call]() if call in others else CALLS[call](away, "0" * 64)
    away.close()
    away.close()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("ssh://ann@example.com", "ssh -nNT -L /tmp/engine.sock"),
        ("tcp:/example.com", "DOCKER_HOST is not the address of an engine, like unix://"),
        ("tcp://a:99999999", "DOCKER_HOST is not the address of an engine"),
        ("tcp://[::1", "DOCKER_HOST is not the address of an engine"),
        ("tcp://127.0.0.1:1", "tell its version"),
    ],
)
def test_unusable_engine_address_is_a_clear_error(address: str, sentence: str) -> None:
    away = DockerRunner({"DOCKER_HOST": address})
    with pytest.raises(EngineUnavailable, match=sentence):
        away.check()
    away.close()


class TestVolumes:
    """The volume for the artifacts, which is ours to remove."""

    @pytest.fixture
    def own(self, spec: ContainerSpec) -> ContainerSpec:
        """A container of an installation of the test's own."""
        return replace(spec, instance_id=f"test-{uuid.uuid4()}")

    @staticmethod
    def volumes(engine: docker.APIClient, label: str) -> list[str]:
        volumes = engine.volumes(filters={"label": label})["Volumes"] or []
        return [str(volume["Name"]) for volume in volumes]

    def test_volume_has_labels_and_is_removed_with_its_container(
        self, runner: DockerRunner, own: ContainerSpec, engine: docker.APIClient
    ) -> None:
        container_id = runner.create(own)
        [volume] = self.volumes(engine, f"reactorcide.instance={own.instance_id}")
        labels = engine.inspect_volume(volume)["Labels"]
        assert (labels["reactorcide.job"], labels["reactorcide.attempt"]) == (own.job_id, "1")
        runner.remove(container_id)
        assert self.volumes(engine, f"reactorcide.instance={own.instance_id}") == []

    def test_only_volumes_without_a_container_are_removed(
        self, runner: DockerRunner, own: ContainerSpec, engine: docker.APIClient
    ) -> None:
        mine, somebody_s = f"reactorcide.instance={own.instance_id}", f"test-{uuid.uuid4()}"
        first, second = runner.create(own), runner.create(replace(own, attempt=2))
        engine.create_volume(somebody_s, labels={"reactorcide.instance": f"not {own.instance_id}"})
        try:
            engine.remove_container(second, v=False)
            assert len(self.volumes(engine, mine)) == 2
            runner.remove_stray_volumes(own.instance_id, lambda: {(own.job_id, 2)})
            assert len(self.volumes(engine, mine)) == 2
            runner.remove_stray_volumes(own.instance_id, lambda: {(own.job_id, 1)})
            [volume] = self.volumes(engine, mine)
            assert engine.inspect_volume(volume)["Labels"]["reactorcide.attempt"] == "1"
            assert engine.inspect_volume(somebody_s)["Name"] == somebody_s
        finally:
            engine.remove_volume(somebody_s)
            runner.remove(first)


@pytest.mark.parametrize("free", range(3))
def test_failed_attach_leaves_no_descriptor_open(create: Callable[..., str], free: int) -> None:
    container_id = create()
    with contextlib.closing(DockerRunner({})) as runner:
        # Its connection is taken for the attach, if it is still there.
        runner.check()
        before = open_descriptors(os.getpid())
        with few_descriptors(free), pytest.raises(EngineUnavailable, match=r"many open files.*ulimit -n"):
            runner.attach(container_id)
        assert len(open_descriptors(os.getpid())) <= len(before)


def test_health_check_of_an_ended_service_has_no_result(
    runner: DockerRunner, create: Callable[..., str]
) -> None:
    # The engine has many answers for that; a few containers meet some of them.
    for _ in range(6):
        container_id = create("sleep 0.4")
        output = started(runner, container_id)
        deadline = time.monotonic() + 10
        while runner.begin_check(container_id, ["true"]) is not None:
            assert time.monotonic() < deadline
        output.close()
