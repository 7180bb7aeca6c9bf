"""What only the object store on S3 has to hold: large objects, crashes, and answers that are errors."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from reactorcide.domain.errors import ObjectNotFound, ObjectStoreError, ObjectStoreRefused
from reactorcide.objects.s3 import PART_BYTES, S3ObjectStore
from tests.support.http_server import serving
from tests.support.s3 import S3Server


@pytest.fixture(autouse=True)
def environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)


def uploads(s3: S3Server, bucket: str) -> list[str]:
    """Return the keys of unfinished uploads."""
    return [item["Key"] for item in s3.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


@contextmanager
def began(store: S3ObjectStore, at: datetime) -> Iterator[None]:
    """Have the server's list of unfinished uploads tell when they began."""

    def change(parsed: dict[str, Any], **_: object) -> None:
        for item in parsed.get("Uploads", ()):
            item["Initiated"] = at

    events = store._client.meta.events
    events.register("after-call.s3.ListMultipartUploads", change)
    yield
    events.unregister("after-call.s3.ListMultipartUploads", change)


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    return s3.new_bucket()


@pytest.fixture(scope="module")
def store(s3: S3Server, bucket: str) -> Iterator[S3ObjectStore]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment().items():
            patch.setenv(name, value)
        store = S3ObjectStore(f"s3://{bucket}/a/prefix")
        store.check()
        yield store


def test_a_large_object_is_stored_in_parts(store: S3ObjectStore, s3: S3Server, bucket: str) -> None:
    pieces = [bytes([number]) * (PART_BYTES // 2 + 1) for number in range(5)]
    assert store.put("large/a", pieces) == sum(map(len, pieces))
    assert b"".join(store.read("large/a")) == b"".join(pieces)
    assert store.size("large/a") == sum(map(len, pieces))
    etag = s3.client.head_object(Bucket=bucket, Key="a/prefix/large/a")["ETag"]
    assert etag.endswith('-3"'), "three parts"
    # Exactly one part, after which nothing comes.
    assert store.put("large/b", [b"x" * PART_BYTES]) == PART_BYTES
    assert b"".join(store.read("large/b", PART_BYTES - 3)) == b"xxx"


def test_failed_upload_is_aborted_and_creates_no_object(
    store: S3ObjectStore, s3: S3Server, bucket: str
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * PART_BYTES
        yield b"y"
        assert uploads(s3, bucket) == ["a/prefix/failed/a"]
        raise KeyError

    with pytest.raises(KeyError):
        store.put("failed/a", chunks())
    with pytest.raises(ObjectNotFound):
        store.read("failed/a")
    assert uploads(s3, bucket) == []


def test_upload_of_a_killed_writer_is_aborted_later(store: S3ObjectStore, s3: S3Server, bucket: str) -> None:
    store.put("killed/old", [b"as it was"])
    script = (
        "import sys, time\n"
        "from reactorcide.objects.s3 import PART_BYTES, S3ObjectStore\n"
        "def chunks():\n"
        "    yield b'half' * PART_BYTES\n"
        "    yield b'more'\n"
        "    print('half-way', flush=True)\n"
        "    time.sleep(600)\n"
        "S3ObjectStore(sys.argv[1]).put(sys.argv[2], chunks())\n"
    )
    command = [sys.executable, "-c", script, f"s3://{bucket}/a/prefix", "killed/old"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half-way\n"
        writer.kill()
    assert b"".join(store.read("killed/old")) == b"as it was"
    s3.client.create_multipart_upload(Bucket=bucket, Key="elsewhere")
    # What began just now may be another service's. The server has the same old time for all.
    with began(store, datetime.now(UTC) - timedelta(seconds=3000)):
        store.remove_leftovers(min_age_s=3600)
        assert sorted(uploads(s3, bucket)) == ["a/prefix/killed/old", "elsewhere"]
    store.remove_leftovers()
    store.remove_leftovers()
    assert uploads(s3, bucket) == ["elsewhere"]
    assert b"".join(store.read("killed/old")) == b"as it was"


def test_several_pages_of_objects_are_listed_and_deleted(
    store: S3ObjectStore, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [*(f"many/{number}" for number in range(8)), "many/<&>\t"]
    if shutil.which("versitygw") is None:
        # It lists keys as they are, though it is asked to encode them.
        names[7] = "many/not\x01in\x7fXML"
    for name in names:
        store.put(name, [b"x"])
    store.put("manyfold/1", [b"x"])
    pages: list[object] = []
    client = store._client
    client.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: params | {"MaxKeys": 4}
    )
    client.meta.events.register("after-call.s3.ListObjectsV2", lambda parsed, **_: pages.append(parsed))
    assert sorted(item.key for item in store.list("many/")) == sorted(names)
    assert len(pages) == 3
    store.delete("many/")
    assert list(store.list("many/")) == []
    assert [item.key for item in store.list("manyfold/")] == ["manyfold/1"]


def test_a_reader_that_stops_early_leaves_nothing_open(store: S3ObjectStore) -> None:
    store.put("early", [b"x" * 1_000_000])
    for _ in range(3):
        chunks = store.read("early")
        assert next(chunks)
        chunks.close()  # type: ignore[attr-defined]  # a generator
    assert len(b"".join(store.read("early"))) == 1_000_000


def test_a_missing_bucket_is_not_a_missing_object(store: S3ObjectStore, tmp_path: Path) -> None:
    missing = S3ObjectStore("s3://no-such-bucket")
    file = tmp_path / "file"
    file.write_bytes(b"x")
    for call in (
        missing.check,
        lambda: missing.put("a", [b"x"]),
        lambda: missing.put_file("a", file),
        lambda: missing.read("a"),
        lambda: missing.size("a"),
        lambda: list(missing.list("a/")),
        lambda: missing.delete("a/"),
        missing.remove_leftovers,
    ):
        with pytest.raises(ObjectStoreRefused, match=r"NoSuchBucket.*; create the bucket, or name another"):
            call()
    assert file.exists()


ERRORS = [
    (403, "InvalidAccessKeyId", "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    (403, "AccessDenied", "that their policy allows"),
    (403, "RequestTimeTooSkewed", "set the clock"),
    (400, "AuthorizationHeaderMalformed", "set AWS_DEFAULT_REGION"),
    (400, "ExpiredToken", "renew AWS_SESSION_TOKEN"),
    (501, "NotImplemented", ""),
    (503, "SlowDown", ""),
]


def test_errors_are_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[str] = []
    status, code = 0, ""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        requests.append(handler.path)
        body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with serving(answer) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        store = S3ObjectStore("s3://bucket/p")
        for status, code, advice in ERRORS:  # noqa: B007  # the server answers with them
            requests.clear()
            with pytest.raises(ObjectStoreError, match=f"s3://bucket/p could not .*: {code}: No") as failed:
                list(store.list("a/"))
            assert advice in str(failed.value)
            assert isinstance(failed.value, ObjectStoreRefused) == bool(advice)
            assert len(requests) == (3 if code == "SlowDown" else 1)


def test_truncated_answer_is_a_store_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"the beginning")

    with serving(answer) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(ObjectStoreError, match="could not read a"):
            list(S3ObjectStore("s3://bucket").read("a"))


def test_unreachable_server_and_bad_settings_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ObjectStoreError, match="could not write a test object: Could not connect") as away:
        S3ObjectStore("s3://bucket").check()
    assert not isinstance(away.value, ObjectStoreRefused)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(ObjectStoreRefused, match="Invalid endpoint: nonsense; check AWS_ENDPOINT_URL"):
        S3ObjectStore("s3://bucket").check()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ObjectStoreRefused, match="Unable to locate credentials; set AWS_ACCESS_KEY_ID"):
        S3ObjectStore("s3://bucket").check()
