"""A service under attack: the cost for other clients and for the machine."""

import json
import shutil
import socket
from contextlib import closing
from statistics import median
from time import monotonic

from tests.support.client import Job
from tests.support.hostile import ask_for_health, attacked, descriptors, memory_bytes
from tests.support.service import Service

_MEBIBYTE = 1 << 20


def read_nothing_of_a_large_artifact(service: Service, job: Job) -> socket.socket:
    """Begin to download the artifact ``large`` of a job, and read no more than the first line."""
    reader = socket.create_connection(("127.0.0.1", service.port), timeout=10)
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.sendall(
        f"GET /api/v1/jobs/{job['job_id']}/artifacts/large HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {service.admin.token}\r\n\r\n".encode()
    )
    assert reader.recv(100).startswith(b"HTTP/1.1 200 ")
    return reader


def besiege(service: Service, *, sockets: int, seconds: float, largest_p99_s: float) -> None:
    """Have ``sockets`` hostile clients of every kind at one address; fail where others notice it too much."""
    api = service.admin
    submitted = api.submit("dd if=/dev/zero of=/job/artifacts/large bs=1M count=256 2>/dev/null")
    job = api.wait(submitted, deadline_s=120)
    assert job["status"] == "completed", job
    # Warm: what the first requests import, and a first attack's worth of threads and buffers, is not growth.
    ask_for_health(service.port, source="127.0.0.2", seconds=1)
    for path in ("/metrics", "/api/docs/swagger-ui-bundle.js", "ready", "openapi.json"):
        api.request("GET", path)
    memory_before = memory_bytes(service)
    descriptors_before = descriptors(service)
    disk_before = shutil.disk_usage(service.data_dir).used
    most = memory_before
    with (
        closing(read_nothing_of_a_large_artifact(service, job)),
        attacked(service, sockets, seconds + 60) as attackers,
    ):
        took: list[float] = []
        until = monotonic() + seconds
        most_descriptors = 0
        while monotonic() < until:
            took += ask_for_health(service.port, source="127.0.0.2", seconds=2)
            most = max(most, memory_bytes(service))
            most_descriptors = max(most_descriptors, descriptors(service))
            assert attackers.poll() is None
    took.sort()
    figures = {
        "sockets": sockets,
        "answers": len(took),
        "median_ms": round(median(took) * 1000, 1),
        "p99_ms": round(took[int(len(took) * 0.99)] * 1000, 1),
        "most_ms": round(took[-1] * 1000, 1),
        "grown_mib": round((most - memory_before) / _MEBIBYTE, 1),
        "descriptors": most_descriptors - descriptors_before,
        "metrics_kib": len(api.request("GET", "/metrics").content) >> 10,
    }
    print(json.dumps(figures))
    assert figures["p99_ms"] <= largest_p99_s * 1000, figures
    assert figures["grown_mib"] <= 64, figures
    # One for each socket, and some of: the file that it is sent, or clients that are drained.
    assert figures["descriptors"] <= 1.1 * sockets + 200, figures
    assert figures["metrics_kib"] <= 100, figures
    # What grows is the service's own log, a line a request, and other programs of this machine.
    assert shutil.disk_usage(service.data_dir).used - disk_before < 512 * _MEBIBYTE
    log = service.log_text()
    assert "Traceback" not in log
    assert "\x1b" not in log
    assert api.run("true")["status"] == "completed"
