"""Objects in a bucket of S3, or of a server like it. Needs the extra ``reactorcide[scale]``."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from urllib3.exceptions import HTTPError

from reactorcide.domain.errors import (
    InvalidInput,
    ObjectChanged,
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreRefused,
)
from reactorcide.lib.deferred import Deferred
from reactorcide.objects import RESERVED, StoredObject, key_parts

log = logging.getLogger("reactorcide.objects")

MAX_S3_KEY_BYTES = 1024
"""Bytes of a key with the prefix: S3's own limit."""
PART_BYTES = 8 << 20
"""Bytes of an object's first parts, which are held in memory; a smaller object is sent in one request."""
_PARTS_OF_ONE_SIZE = 1000
"""After so many the parts become larger: S3 allows 10,000, which then have 430 GiB."""
_CHUNK_BYTES = 1 << 18
_READ_S = 30.0
"""How long a server may be silent within an answer."""
_DELETED_AT_ONCE = 1000
_PROBE = f"{RESERVED}/probe"
_FRESH_S = 5.0
"""A bucket that took an object this recently is not probed again."""
_NO_KEY = "NoSuchKey"
_NO_RANGE = "InvalidRange"
_CHANGED = ("PreconditionFailed", "ConditionalRequestConflict", "412")
_ADVICE = {
    "NoSuchBucket": "create the bucket, or name another one with --objects",
    "PermanentRedirect": "set AWS_DEFAULT_REGION to the region of the bucket",
    "AuthorizationHeaderMalformed": "set AWS_DEFAULT_REGION to the region of the bucket",
    "IllegalLocationConstraintException": "set AWS_DEFAULT_REGION to the region of the bucket",
    "RequestTimeTooSkewed": "set the clock of this host",
    "ExpiredToken": "renew AWS_SESSION_TOKEN with the key that belongs to it",
}
_ADVICE_CREDENTIALS = (
    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, that their policy allows to list the bucket and to "
    "read, write and delete its objects, and AWS_ENDPOINT_URL if it is not Amazon's"
)
# S3 lists and deletes many keys in XML, which cannot have these.
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class S3ObjectStore:
    """An ``ObjectStore`` on ``s3://bucket/prefix``: the key is appended to the prefix.

    Endpoint, region and credentials are what AWS's own tools use: variables like ``AWS_ENDPOINT_URL``, or
    files below ``~/.aws``. A request is tried three times. An object of several parts is there once its
    upload is completed; ``remove_leftovers`` aborts uploads whose writer was killed.

    Raises ``ObjectStoreRefused`` for an answer that only the operator can change.
    """

    def __init__(self, url: str, *, region: str | None = None, is_quick: bool = False) -> None:
        """``url`` is like ``s3://bucket/prefix``. Nothing is connected yet.

        With ``is_quick`` a server that hangs is an error after about ten seconds, before the first byte.
        """
        self._url = url
        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        # Long enough for a part of 8 MiB on a slow line; the probe's are those of a readiness check.
        self._client: Any = (
            _client(region, connect_s=2, read_s=4, tries=2)
            if is_quick
            else _client(region, connect_s=5, read_s=_READ_S, tries=3)
        )
        self._probe_client: Any = _client(region, connect_s=2, read_s=3, tries=1)
        self._written_at = float("-inf")
        self._knows_conditions = True

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """See ``ObjectStore.put``; an error of ``chunks`` itself passes through and stores nothing."""
        return self._put(key, chunks, {})

    def tag(self, key: str) -> str | None:
        """See ``ObjectStore.tag``."""
        try:
            return str(self._head(key)["ETag"])
        except ObjectNotFound:
            return None

    def replace(self, key: str, chunks: Iterable[bytes], tag: str | None) -> int:
        """See ``ObjectStore.replace``. A server that does not know the condition replaces any object."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        return self._put(key, chunks, condition if self._knows_conditions else {})

    def _put(self, key: str, chunks: Iterable[bytes], condition: dict[str, str]) -> int:
        name = self._name(key)
        parts = _parts(chunks)
        first = next(parts, b"")
        upload: dict[str, Any] = {"Bucket": self._bucket, "Key": name}
        if len(first) < PART_BYTES:
            self._finish(key, condition, self._client.put_object, upload | {"Body": first})
            self._written_at = monotonic()
            return len(first)
        with self._translated(f"write {key}"):
            upload["UploadId"] = self._client.create_multipart_upload(**upload)["UploadId"]
        try:
            return self._put_parts(key, upload, condition, first, parts)
        except BaseException:
            with suppress(ObjectStoreError), self._translated(f"abort {key}"):
                self._client.abort_multipart_upload(**upload)
            raise

    def _finish(
        self, key: str, condition: dict[str, str], call: Callable[..., Any], arguments: dict[str, Any]
    ) -> None:
        """Make the call by which an object appears, under a condition."""
        try:
            with self._translated(f"write {key}"):
                call(**arguments, **condition)
        except _NotImplemented:
            if not condition:
                raise
            self._knows_conditions = False
            log.info("%s takes no conditions, so that a log may be replaced by an older one", self._url)
            self._finish(key, {}, call, arguments)
        except _NoSuchKey as exc:
            if "IfMatch" in condition:
                raise ObjectChanged(f"the object {key} is gone") from exc
            raise

    def _put_parts(
        self,
        key: str,
        upload: dict[str, str],
        condition: dict[str, str],
        first: bytes,
        following: Iterator[bytes],
    ) -> int:
        size_bytes = 0
        done: list[dict[str, Any]] = []
        part = first
        while part:
            number = len(done) + 1
            with self._translated(f"write {key}"):
                answer = self._client.upload_part(**upload, PartNumber=number, Body=part)
            done.append({"PartNumber": number, "ETag": answer["ETag"]})
            size_bytes += len(part)
            part = next(following, b"")
        parts = {"MultipartUpload": {"Parts": done}}
        self._finish(key, condition, self._client.complete_multipart_upload, upload | parts)
        self._written_at = monotonic()
        return size_bytes

    def put_file(self, key: str, path: Path) -> None:
        """See ``ObjectStore.put_file``."""
        try:
            with path.open("rb") as file:
                self.put(key, iter(lambda: file.read(_CHUNK_BYTES), b""))
            path.unlink()
        except OSError as exc:
            raise ObjectStoreError(f"the file {path} could not be stored: {exc.strerror}") from exc

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See ``ObjectStore.read``."""
        if start == end:
            self.size(key)
            return iter(())
        bounds = (
            {} if (start, end) == (0, None) else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        )
        try:
            with self._translated(f"read {key}"):
                answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key), **bounds)
        except _NoSuchKey as exc:
            raise ObjectNotFound(f"there is no object {key}") from exc
        except _BeyondTheEnd:
            return iter(())
        if answer["ContentLength"]:
            # Shorter until now, for a quick one. Without any bytes to come there is no socket any more.
            answer["Body"].set_socket_timeout(_READ_S)
        chunks = self._chunks(key, answer["Body"])
        # Started, so that closing the iterator closes the connection.
        next(chunks)
        return chunks

    def _chunks(self, key: str, body: Any) -> Iterator[bytes]:
        """Yield an empty chunk, then those of an answer's body; close it, even if the reader stops early."""
        with closing(body):
            yield b""
            while True:
                with self._translated(f"read {key}"):
                    chunk = body.read(_CHUNK_BYTES)
                if not chunk:
                    return
                yield chunk

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        return int(self._head(key)["ContentLength"])

    def _head(self, key: str) -> dict[str, Any]:
        name = self._name(key)
        try:
            with self._translated(f"read {key}"):
                found: dict[str, Any] = self._client.head_object(Bucket=self._bucket, Key=name)
                return found
        except _NoSuchKey as exc:
            # An answer to HEAD has no body, so it does not tell a missing object from a missing bucket.
            with self._translated(f"read {key}"):
                self._client.list_objects_v2(Bucket=self._bucket, Prefix=name, MaxKeys=1)
            raise ObjectNotFound(f"there is no object {key}") from exc

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """See ``ObjectStore.list``; objects added or removed meanwhile may be listed or not."""
        below = self._below(prefix)
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=below)
        for page in self._each(pages, f"list {prefix}"):
            for item in page.get("Contents", ()):
                yield StoredObject(item["Key"].removeprefix(self._prefix), item["Size"])

    def used_bytes(self, prefix: str) -> int:
        """See ``ObjectStore.used_bytes``."""
        return sum(item.size_bytes for item in self.list(prefix))

    def delete(self, prefix: str) -> None:
        """See ``ObjectStore.delete``."""
        items = self.list(prefix)
        while names := [self._prefix + item.key for item in islice(items, _DELETED_AT_ONCE)]:
            together = [{"Key": name} for name in names if _NOT_IN_XML.search(name) is None]
            with self._translated(f"delete {prefix}"):
                for name in names:
                    if _NOT_IN_XML.search(name) is not None:
                        self._client.delete_object(Bucket=self._bucket, Key=name)
                if together:
                    answer = self._client.delete_objects(
                        Bucket=self._bucket, Delete={"Objects": together, "Quiet": True}
                    )
                    for problem in answer.get("Errors", ()):
                        raise ClientError({"Error": problem}, "DeleteObjects")

    def check(self) -> None:
        """See ``ObjectStore.check``; it writes an object, unless one was written just now."""
        if monotonic() - self._written_at < _FRESH_S:
            return
        with self._translated("write a test object"):
            self._probe_client.put_object(Bucket=self._bucket, Key=self._prefix + _PROBE, Body=b"x")
        self._written_at = monotonic()

    def remove_leftovers(self, min_age_s: float = 0) -> None:
        """See ``ObjectStore.remove_leftovers``; aborts uploads by the server's record of when they began."""
        before = datetime.now(UTC) - timedelta(seconds=min_age_s)
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket, Prefix=self._prefix
        )
        action = "abort unfinished uploads"
        for page in self._each(pages, action):
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] > before:
                    continue
                # Its writer may complete it, or another service abort it, at the same time.
                with suppress(_NoSuchKey), self._translated(action):
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    def _each(self, pages: Iterable[dict[str, Any]], action: str) -> Iterator[dict[str, Any]]:
        iterator = iter(pages)
        while True:
            with self._translated(action):
                page = next(iterator, None)
            if page is None:
                return
            yield page

    def _name(self, key: str) -> str:
        key_parts(key)
        name = self._prefix + key
        if len(name.encode()) > MAX_S3_KEY_BYTES:
            raise InvalidInput(
                f"{key[:100]!r}… is too long for an object of S3: with its prefix it may have "
                f"{MAX_S3_KEY_BYTES} bytes"
            )
        return name

    def _below(self, prefix: str) -> str:
        return self._name(prefix.removesuffix("/")) + "/"

    @contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        """Turn an error of the client into an ``ObjectStoreError`` with a sentence."""
        failed = f"the object store {self._url} could not {action}"
        try:
            yield
        except ClientError as exc:
            code = str(exc.response.get("Error", {}).get("Code", ""))
            status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in (_NO_KEY, "NoSuchUpload", "404"):
                raise _NoSuchKey(f"{failed}: {code}") from exc
            if code == _NO_RANGE or status == 416:
                raise _BeyondTheEnd(f"{failed}: {code}") from exc
            if code in _CHANGED:
                raise ObjectChanged(f"{failed}: it is another object by now ({code})") from exc
            message = str(exc.response.get("Error", {}).get("Message", ""))
            reason = f"{failed}: {code}: {message.rstrip('.')}" if message else f"{failed}: {code}"
            advice = _ADVICE.get(code, _ADVICE_CREDENTIALS if status in (401, 403) else None)
            if advice is not None:
                raise ObjectStoreRefused(f"{reason}; {advice}") from exc
            raise (_NotImplemented if code == "NotImplemented" else ObjectStoreError)(reason) from exc
        except (NoCredentialsError, PartialCredentialsError) as exc:
            raise ObjectStoreRefused(
                f"{failed}: {exc}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from exc
        except (BotoCoreError, HTTPError, OSError) as exc:
            raise ObjectStoreError(f"{failed}: {exc}") from exc


class _NoSuchKey(ObjectStoreError):
    """There is no object under the key, or no such upload."""


class _NotImplemented(ObjectStoreError):
    """The server does not know something that it was asked for."""


class _BeyondTheEnd(ObjectStoreError):
    """A range begins at the end of its object, or after it."""


def _client(region: str | None, *, connect_s: float, read_s: float, tries: int) -> Deferred:
    def make() -> Any:
        config = Config(
            connect_timeout=connect_s,
            read_timeout=read_s,
            retries={"mode": "standard", "total_max_attempts": tries},
            max_pool_connections=64,
            # Servers other than Amazon's mostly know no others.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            return boto3.session.Session(region_name=region).client("s3", config=config)
        except (BotoCoreError, ValueError) as exc:
            raise ObjectStoreRefused(
                f"the object store cannot be used: {exc}; check AWS_ENDPOINT_URL, AWS_DEFAULT_REGION and "
                "AWS_PROFILE"
            ) from exc

    return Deferred(make)


def _parts(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Join chunks to parts of at least ``PART_BYTES``, except for the last; the last may be empty."""
    held: list[bytes] = []
    held_bytes = number = 0
    for chunk in chunks:
        held.append(chunk)
        held_bytes += len(chunk)
        if held_bytes >= PART_BYTES * (1 + number // _PARTS_OF_ONE_SIZE):
            yield b"".join(held)
            held, held_bytes, number = [], 0, number + 1
    yield b"".join(held)
