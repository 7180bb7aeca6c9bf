"""All attacks at once for an hour, while honest users' jobs run to their right end."""

import json
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic

import docker
import pytest

from tests.conftest import NewService
from tests.sources.support import Repository, git_http
from tests.support.client import Client
from tests.support.hostile import ask_for_health, attacked, descriptors, memory_bytes
from tests.support.hostile_users import Target, hostile_users, users_of
from tests.support.image import Images
from tests.support.ports import free_port
from tests.support.service import Service
from tests.support.tars import member, tar, tar_gz

DURATION_S = float(os.environ.get("REACTORCIDE_SOAK_S", "3600"))
SOCKETS = 2000
MEBIBYTE = 1 << 20
MOST_DESCRIPTORS = 3300
"""The service has at most 3000 clients, and some of those that it has closed with are still waited for."""
LARGEST_P99_S = 2.0
"""Beside the attackers, two cores run the containers of five jobs, git and an engine; what a
quiet machine takes is in ``test_hostile_clients.py``."""
HONEST_JOB_S = 180
"""From its submission on: it waits for a place behind jobs that are killed at 48 MB of disk."""
WARM_S = 300
"""After this all threads, connections and caches that an attack brings about are there."""
LIMITS = {
    "concurrency": 5,
    # The large jobs of a hostile user are in another, to be listed only: the places are for all users alike.
    "queue": "default",
    "max_disk": "48m",
    "pids_limit": 64,
    "default_memory_limit": "128m",
    # Hostile jobs use up both, and honest ones must not on a machine that does much else.
    "prepare_timeout": 40,
    "collect_timeout": 30,
    "git_memory": "256m",
    "max_artifact_bytes": "4m",
    "max_artifacts": 1000,
    "max_source_bytes": "8m",
    "max_log_bytes": "4m",
    "keep_jobs": 200,
    "bad_tokens": 10,
    "allow_address": "127.0.0.1",
}


@dataclass
class Honest:
    """What became of the jobs of honest users."""

    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def work_honestly(client: Client, git_url: str, seed: int, over: threading.Event, honest: Honest) -> None:
    """Submit one job after another, and see that each ends as it has to."""
    chance = random.Random(seed)  # noqa: S311  # to be repeated, not to be secret
    while not over.is_set():
        number, exit_code = chance.randrange(1 << 30), chance.choice((0, 0, 3))
        fields: dict[str, object] = {}
        kind = chance.choice(("plain", "uploaded", "git"))
        if kind == "uploaded":
            source = tar_gz(member("word", b"word of mine\n"))
            answer = client.request(
                "POST", "sources", data=source, headers={"Content-Type": "application/gzip"}
            )
            if answer.status_code == 503:
                over.wait(1)
                continue
            fields = {"source_id": answer.json()["source_id"]}
        elif kind == "git":
            fields = {"source_type": "git", "git_url": git_url}
        command = f"""
            [ {kind} = plain ] || cat word
            for i in $(seq 200); do echo "line $i of {number}"; done
            seq {number} {number + 5000} >/job/artifacts/numbers
            exit {exit_code}"""
        start_s = monotonic()
        try:
            job = client.wait(client.submit(command, **fields), deadline_s=HONEST_JOB_S)
            lines = [] if kind == "plain" else ["word of mine"]
            lines += [f"line {i} of {number}" for i in range(1, 201)]
            expected = {
                "status": "failed" if exit_code else "completed",
                "exit_code": exit_code,
                "log": "".join(f"{line}\n" for line in lines).encode(),
                "artifact": "".join(f"{i}\n" for i in range(number, number + 5001)).encode(),
            }
            actual = {
                "status": job["status"],
                "exit_code": job["exit_code"],
                # What the service says of git is its own stream.
                "log": client.log(job, stream="stdout"),
                "artifact": client.request("GET", f"jobs/{job['job_id']}/artifacts/numbers").content,
            }
            wrong = [f"{what}: {actual[what]!r:.3000}" for what in expected if actual[what] != expected[what]]
            if wrong:
                honest.failures.append(f"{kind}: {job}: {wrong}")
        except Exception as exc:
            honest.failures.append(f"{kind}: {type(exc).__name__}: {str(exc)[:3000]}")
        honest.took_s.append(monotonic() - start_s)


@contextmanager
def honest_users(service: Service, base: Path) -> Iterator[Honest]:
    """Have users work at another address than the attackers."""
    repository = Repository(base / "honest")
    repository.commit("word", "word of mine\n")
    over, honest = threading.Event(), Honest()
    with git_http(base, address="127.0.0.1") as server:
        clients = [
            Client(service.base_url, service.add_user(f"honest-{number}").token, source="127.0.0.2")
            for number in range(2)
        ]
        threads = [
            threading.Thread(
                target=work_honestly, args=(client, f"{server.url}/honest/.git", number, over, honest)
            )
            for number, client in enumerate(clients)
        ]
        for thread in threads:
            thread.start()
        try:
            yield honest
        finally:
            over.set()
            for thread, client in zip(threads, clients, strict=True):
                thread.join()
                client.close()


@dataclass
class Watch:
    """Looks at a service again and again: no figure may pass its bound, nor go on growing."""

    service: Service
    engine: docker.APIClient
    took_s: list[float] = field(default_factory=list, repr=False)
    figures: list[dict[str, float]] = field(default_factory=list, repr=False)
    start_s: float = field(default_factory=monotonic)
    log_bytes: int = 0

    def look(self) -> dict[str, float]:
        """Ask for health for a while, look at everything, and keep the figures."""
        took_s = ask_for_health(self.service.port, source="127.0.0.3", seconds=3)
        self.took_s += took_s
        self._look_at_the_log()
        figures = {
            "at_s": monotonic() - self.start_s,
            "memory_mib": memory_bytes(self.service) / MEBIBYTE,
            "descriptors": descriptors(self.service),
            "disk_mib": disk_bytes(self.service.data_dir) / MEBIBYTE,
            "containers": len(self.service.containers(self.engine)),
            "most_ms": max(took_s) * 1000,
        }
        self.figures.append(figures)
        print({name: round(value, 1) for name, value in figures.items()}, flush=True)
        return figures

    def growth(self, name: str) -> float:
        """Return by how much the second half of the time has more than the first, once all have begun.

        A run that is too short for that has no growth.
        """
        values = [figures[name] for figures in self.figures if figures["at_s"] >= WARM_S]
        middle = len(values) // 2
        return median(values[middle:]) - median(values[:middle]) if middle else 0.0

    def _look_at_the_log(self) -> None:
        # Emptied, because an hour gives a line for each request of an attacker.
        log = self.service.log_text()
        os.truncate(self.service.log_path, 0)
        self.log_bytes += len(log)
        assert "Traceback" not in log, log[max(0, log.index("Traceback") - 2000) :][:8000]
        assert "\x1b" not in log


def disk_bytes(directory: Path) -> int:
    """Return what the files below a directory take."""
    total = 0
    for where, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


@pytest.fixture
def image_with_many_users(engine: docker.APIClient, images: Images) -> Iterator[str]:
    """An image whose list of users is 64 MB long, and needed."""
    name = "reactorcide-test:many-users"
    engine.import_image_from_data(
        tar(member("etc/passwd", bytes(64 * MEBIBYTE))),
        repository="reactorcide-test",
        tag="many-users",
        changes=["USER nobody-knows", "CMD /bin/sh"],
    )
    yield name
    engine.remove_image(name, force=True)


def test_concurrent_attacks_do_not_slow_honest_users(
    new_service: NewService, engine: docker.APIClient, image_with_many_users: str, tmp_path: Path
) -> None:
    service = new_service(log_format="json", max_artifact_bytes="300m")
    submitted = service.admin.submit("dd if=/dev/zero of=/job/artifacts/large bs=1M count=256 2>/dev/null")
    large = service.admin.wait(submitted, deadline_s=120)
    service.admin.request("PUT", f"jobs/{large['job_id']}/pin")
    service.stop()
    port = free_port()
    service.options |= {**LIMITS, "corndogs_listen": port}
    service.start()
    watch = Watch(service, engine)
    for _ in range(3):
        before = watch.look()
    target = Target(
        base_url=service.base_url,
        tokens=users_of(service, 3),
        large=f"/api/v1/jobs/{large['job_id']}/artifacts/large",
        large_token=service.admin.token or "",
        image=image_with_many_users,
        corndogs=f"127.0.0.1:{port}",
        seconds=DURATION_S,
    )
    until = monotonic() + DURATION_S
    with (
        honest_users(service, tmp_path / "repositories") as honest,
        hostile_users(target) as users,
    ):
        while monotonic() < until:
            with attacked(service, SOCKETS, DURATION_S + 600) as strangers:
                while monotonic() < until and strangers.poll() is None:
                    last = watch.look()
                    assert not honest.failures, "\n".join(honest.failures)
                    assert users.poll() is None or monotonic() > until - 30
                    assert last["memory_mib"] - before["memory_mib"] <= 160, watch.figures
                    assert last["descriptors"] - before["descriptors"] <= MOST_DESCRIPTORS, watch.figures
                    assert last["disk_mib"] - before["disk_mib"] <= 2048, watch.figures
                    assert last["containers"] <= 15, watch.figures
        # The other attackers have ended; the jobs of hostile users end, each in its time.
        output, _ = users.communicate(timeout=600)
    result = json.loads(output)
    took_s = sorted(watch.took_s)
    summary = {
        "p99_ms": round(took_s[int(len(took_s) * 0.99)] * 1000),
        "median_ms": round(median(took_s) * 1000),
        "honest_jobs": len(honest.took_s),
        "longest_honest_job_s": round(max(honest.took_s), 1),
        "log_mib": watch.log_bytes // MEBIBYTE,
        **{f"{name}_growth": round(watch.growth(name), 1) for name in ("memory_mib", "descriptors")},
        **result,
    }
    print(json.dumps(summary, indent=1))
    assert len(result["ended"]) >= 15, "the hostile users hardly came to anything"
    assert not result["failures"], "\n".join(result["failures"])
    assert not honest.failures, "\n".join(honest.failures)
    assert len(honest.took_s) >= DURATION_S / 20
    assert summary["p99_ms"] <= LARGEST_P99_S * 1000, summary
    assert watch.growth("memory_mib") <= 24, watch.figures
    assert watch.growth("descriptors") <= 100, watch.figures
    assert not any((service.data_dir / "objects" / ".tmp").iterdir())
    service.admin.request("DELETE", f"jobs/{large['job_id']}")
    assert service.admin.run("true")["status"] == "completed"
