"""An S3 server in a separate process, over HTTP: versitygw where that is installed, else moto's."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3.session

from tests.support.ports import free_port, is_listening
from tests.support.waiting import wait_until

_LISTENS = re.compile(r"(http://127\.0\.0\.1:\d+)")
_ID = _SECRET = "testing"


class S3Server:
    """A running server, with a new bucket for each test."""

    def __init__(self, url: str, process_id: int) -> None:
        self.url = url
        self._numbers = itertools.count(1)
        self._bucket = ""
        self.process_id = process_id
        self.client: Any = boto3.session.Session().client("s3", endpoint_url=url, **_CREDENTIALS)

    def new_bucket(self) -> str:
        """Create a bucket and return its name."""
        name = f"bucket-{next(self._numbers)}"
        self.client.create_bucket(Bucket=name)
        self._bucket = name
        return name

    def empty(self) -> None:
        """Remove the objects of the newest bucket."""
        for item in self.client.list_objects_v2(Bucket=self._bucket).get("Contents", ()):
            self.client.delete_object(Bucket=self._bucket, Key=item["Key"])

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Return the variables by which AWS's clients find it, or a proxy in front of it."""
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": _ID,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


_CREDENTIALS = {
    "aws_access_key_id": _ID,
    "aws_secret_access_key": _SECRET,
    "region_name": "us-east-1",
}


@contextmanager
def running(home: Path) -> Iterator[S3Server]:
    """Run a server, whose objects, below an empty directory, end with it."""
    command, environment = _versitygw(home) if shutil.which("versitygw") else _moto()
    log_path = home / "log"
    with (
        log_path.open("wb") as log,
        subprocess.Popen(
            command, env={"PATH": os.environ["PATH"]} | environment, stdout=log, stderr=log
        ) as process,
    ):
        try:
            wait_until(lambda: _LISTENS.search(log_path.read_text()) is not None, 30, "the server listens")
            match = _LISTENS.search(log_path.read_text())
            assert match is not None
            port = int(match[1].rpartition(":")[2])
            wait_until(lambda: is_listening(port), 30, "the server accepts")
            yield S3Server(match[1], process.pid)
        finally:
            process.kill()


def _versitygw(home: Path) -> tuple[list[str], dict[str, str]]:
    objects, about = home / "objects", home / "about"
    for directory in (objects, about):
        directory.mkdir()
    command = ["versitygw", "--port", f"127.0.0.1:{free_port()}"]
    # Not every file system of a machine for tests has extended attributes.
    command += ["posix", "--sidecar", str(about), str(objects)]
    return command, {"ROOT_ACCESS_KEY": _ID, "ROOT_SECRET_KEY": _SECRET}


def _moto() -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    return command, {"S3_UPLOAD_PART_MIN_SIZE": str(5 << 20)}


def bucket_keys(environment: Mapping[str, str], url: str, prefix: str) -> list[str]:
    """Return the keys below ``url`` that begin with ``prefix``, by the variables of a service."""
    bucket, _, base = url.removeprefix("s3://").partition("/")
    address = environment["AWS_ENDPOINT_URL"]
    client: Any = boto3.session.Session().client("s3", endpoint_url=address, **_CREDENTIALS)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{base}/{prefix}")
    return [item["Key"].removeprefix(f"{base}/") for page in pages for item in page.get("Contents", ())]
