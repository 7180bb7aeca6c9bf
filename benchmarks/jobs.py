"""Jobs and logs against the plain engine."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import time
from typing import Any

import docker
import docker.errors

from benchmarks.figures import Figure, interleaved, ratio, seconds
from benchmarks.service import Client, serving

_LINE_BYTES = 100


def one_job(image: str, *, quick: bool) -> list[Figure]:
    """Compare a job of ``true``, from its submission until a client has its result, with ``docker run``.

    In a container that is created for it, and in one that was started before.
    """
    with serving("--concurrency", "1", "--warm", "0") as service:
        client = service.client()
        cold, bare = interleaved(
            5 if quick else 25,
            lambda: seconds(lambda: client.wait(client.submit(image))),
            lambda: seconds(lambda: _docker_run(image, "true")),
        )
    with _serving_warm(image) as client:
        warm, beside = interleaved(
            5 if quick else 25,
            lambda: _warm_seconds(client, image),
            lambda: _seconds_beside_warm(client, image, "true"),
        )
    return [
        ratio("one job, submit to completed", _milli(cold), _milli(bare), unit="ms", mark=1.05),
        ratio("the same, warm container", _milli(warm), _milli(beside), unit="ms", mark=0.40),
    ]


def source(image: str, *, quick: bool) -> Figure:
    """Compare a job with a copied source of 1 MB, in a warm container, with ``docker run -v`` of the same."""
    with tempfile.TemporaryDirectory(prefix="reactorcide-benchmark-") as directory:
        for number in range(10):
            Path(directory, f"file-{number}").write_bytes(os.urandom(100_000))
        command = "cat /job/src/* > /dev/null"
        with _serving_warm(image, "--source-root", directory) as client:
            ours, bare = interleaved(
                5 if quick else 25,
                lambda: _warm_seconds(client, image, command, source_path=directory),
                lambda: _seconds_beside_warm(
                    client, image, "sh", "-c", command, mount=f"{directory}:/job/src"
                ),
            )
    return ratio("source of 1 MB, warm container", _milli(ours), _milli(bare), unit="ms", mark=0.8)


@contextlib.contextmanager
def _serving_warm(image: str, *options: str) -> Iterator[Client]:
    with serving("--concurrency", "1", "--warm", "2", *options) as service:
        client = service.client()
        for _ in range(2):
            client.wait(client.submit(image))
        yield client


def _seconds_beside_warm(client: Client, image: str, *command: str, mount: str | None = None) -> float:
    # Not while the service has the engine remove one container and start another.
    client.wait_until_warm(2)
    return seconds(lambda: _docker_run(image, *command, mount=mount))


def _warm_seconds(client: Client, image: str, command: str = "true", **options: Any) -> float:
    client.wait_until_warm(2)
    return seconds(lambda: client.wait(client.submit(image, command, **options)))


def time_to_start(image: str, *, quick: bool) -> Figure:
    """Return our overhead on the time from a submission to the start of its container.

    Ours is the time from before the POST to the engine's ``start`` event. Bare is the time from before a
    create to that event, with the engine's configuration of such a job's container, sent directly to it:
    create, attach, start, in the same order and with the same flags. The difference of the two medians is
    our overhead. The engine has to be on this machine, because its clock is compared with ours.
    """
    engine = docker.APIClient(version="auto")
    rounds = 5 if quick else 25
    with serving("--concurrency", "1", "--warm", "0") as service:
        client = service.client()
        # Without standard input, because no command is handed over: such a container ends at once.
        config = _config_of_a_job(engine, client, image) | {"AttachStdin": False, "OpenStdin": False}

        def ours() -> float:
            started_at = time()
            job_id = client.submit(image)
            client.wait(job_id)
            return _started(engine, f"reactorcide-{job_id}-1", started_at) - started_at

        def bare() -> float:
            started_at = time()
            created = engine.create_container_from_config(config)  # type: ignore[no-untyped-call]  # the SDK's
            container = str(created["Id"])
            try:
                stream = engine.attach_socket(container, params={"stdout": 1, "stderr": 1, "stream": 1})
                engine.start(container)
                engine.wait(container)
                stream.close()
                return _started(engine, container, started_at) - started_at
            finally:
                engine.remove_container(container, v=True, force=True)

        ours_s, bare_s = interleaved(rounds, ours, bare)
    engine.close()
    a, b = median(_milli(ours_s)), median(_milli(bare_s))
    return Figure("submission to container start", a, b, "ms", a - b, "ms more", 60, False, rounds)


def service_to_command(image: str, *, quick: bool) -> Figure:
    """Return the time from the readiness of a job's service to the start of its command, less one check.

    Ours is the time from when the service is ready, by its own clock, to the command's first line. Bare is
    the time of the same check in a container of the engine, from its start to its result.
    """
    rounds = 5 if quick else 15
    check = "test -s /tmp/www/ready"
    script = (
        "mkdir /tmp/www; (sleep 0.7; cat /proc/uptime >/tmp/www/ready) & exec httpd -f -p 8080 -h /tmp/www"
    )
    web = {"image": image, "command": f"sh -c '{script}'", "ready": check}
    engine = docker.APIClient(version="auto")
    created = engine.create_container(image, ["sh", "-c", script])
    try:
        engine.start(created)
        with serving("--concurrency", "1") as service:
            client = service.client()

            def ours() -> float:
                command = "cat /proc/uptime; wget -q -O - http://web:8080/ready"
                job_id = client.submit(image, command, services={"web": web})
                client.wait(job_id)
                began, ready = client.call("GET", f"/jobs/{job_id}/logs").splitlines()
                return float(began.split()[0]) - float(ready.split()[0])

            def bare() -> float:
                return seconds(lambda: _check(engine, created["Id"], check))

            ours_s, bare_s = interleaved(rounds, ours, bare)
    finally:
        engine.remove_container(created, v=True, force=True)
        engine.close()
    a, b = median(_milli(ours_s)), median(_milli(bare_s))
    return Figure("service ready to command start", a, b, "ms", a - b, "ms more", 100, False, rounds)


def _check(engine: docker.APIClient, container_id: str, check: str) -> None:
    command = engine.exec_create(container_id, ["/bin/sh", "-c", check], stdout=False, stderr=False)
    engine.exec_start(command["Id"], detach=True)
    while engine.exec_inspect(command["Id"])["Running"]:
        pass


def many_jobs(image: str, *, quick: bool) -> Figure:
    """Compare short jobs, four at a time, with as many ``docker run``, four at a time."""
    jobs = 12 if quick else 50
    with serving("--concurrency", "4") as service, ThreadPoolExecutor(4) as pool:
        client = service.client()

        def ours() -> None:
            for job_id in [client.submit(image) for _ in range(jobs)]:
                client.wait(job_id)

        def bare() -> None:
            for run in [pool.submit(_docker_run, image, "true") for _ in range(jobs)]:
                run.result()

        ours_s, bare_s = interleaved(1 if quick else 3, lambda: seconds(ours), lambda: seconds(bare))
    return ratio(f"{jobs} jobs, 4 at a time", ours_s, bare_s, unit="s", mark=1.0)


def log_throughput(image: str, *, quick: bool, jobs: int = 1, secrets: int = 0) -> Figure:
    """Compare the bytes per second of jobs' logs with those of ``docker run … > file``; both are stored.

    ``jobs`` is the number of concurrent jobs, and ``secrets`` that of their secret variables.
    """
    size_bytes = (20_000_000 if quick else 150_000_000) // jobs
    command = f"yes {'x' * (_LINE_BYTES - 1)} | head -c {size_bytes}"
    variables = {f"SECRET_{number}_TOKEN": f"not-to-be-seen-{number:017}" for number in range(secrets)}
    with serving("--concurrency", str(jobs)) as service, ThreadPoolExecutor(jobs) as pool:
        client = service.client()

        def ours() -> float:
            job_ids: list[str] = []

            def run() -> None:
                job_ids.extend(client.submit(image, command, job_env_vars=variables) for _ in range(jobs))
                for job_id in job_ids:
                    client.wait(job_id)

            took_s = seconds(run)
            for job_id in job_ids:
                stored_bytes = len(client.call("GET", f"/jobs/{job_id}/logs"))
                if stored_bytes != size_bytes:
                    raise RuntimeError(f"{size_bytes} bytes were printed, and {stored_bytes} are in the log")
                client.delete(job_id)
            return jobs * size_bytes / took_s / 1e6

        def bare() -> float:
            def run() -> None:
                # On the file system of the service's data.
                with tempfile.TemporaryFile() as file:
                    subprocess.run(
                        ["docker", "run", "--rm", image, "sh", "-c", command], stdout=file, check=True
                    )

            took_s = seconds(lambda: [one.result() for one in [pool.submit(run) for _ in range(jobs)]])
            return jobs * size_bytes / took_s / 1e6

        # Single figures of concurrent jobs vary more.
        rounds = 5 if jobs == 1 else 9
        ours_mb, bare_mb = interleaved(1 if quick else rounds, ours, bare)
    name = f"log of {size_bytes // 1_000_000} MB" + (f", {jobs} at once" if jobs > 1 else "")
    return ratio(
        name + (f", {secrets} secrets" if secrets else ""),
        ours_mb,
        bare_mb,
        unit="MB/s",
        mark=1.0,
        at_least=True,
    )


def _docker_run(image: str, *command: str, mount: str | None = None) -> None:
    options = [] if mount is None else ["-v", mount]
    subprocess.run(["docker", "run", "--rm", *options, image, *command], check=True, capture_output=True)


def _milli(times_s: list[float]) -> list[float]:
    return [time_s * 1000 for time_s in times_s]


def _config_of_a_job(engine: docker.APIClient, client: Client, image: str) -> dict[str, object]:
    """Return a job's container configuration, without its labels; it runs ``true``."""
    job_id = client.submit(image, "sleep 60")
    try:
        client.wait(job_id, for_status="running")
        details = None
        while details is None:
            # A job is running from its claim on; its container is created a moment later.
            with contextlib.suppress(docker.errors.NotFound):
                details = engine.inspect_container(f"reactorcide-{job_id}-1")
    finally:
        client.delete(job_id)
    config: dict[str, object] = dict(details["Config"])
    config["Cmd"] = [part.replace("sleep 60", "true") for part in details["Config"]["Cmd"]]
    config["HostConfig"] = details["HostConfig"]
    # The host name is the container's id. With the labels it would look like a job's container.
    del config["Hostname"], config["Labels"]
    return config


def _started(engine: docker.APIClient, container: str, since: float) -> float:
    """Return when a container was started, by the engine's clock; it may be removed since."""
    # The engine accepts fractions of a second; the SDK passes them on, against its types.
    events = engine.events(  # type: ignore[call-overload]
        since=f"{since:.6f}",
        until=f"{time():.6f}",
        filters={"type": "container", "event": "start"},
        decode=True,
    )
    for event in events:
        if container in (event["Actor"]["ID"], event["Actor"]["Attributes"]["name"]):
            return float(event["timeNano"]) / 1e9
    raise RuntimeError(f"the engine does not know when {container} was started; is it on another machine?")
