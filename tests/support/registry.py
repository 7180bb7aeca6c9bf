"""A registry with one image, on this host: engines speak plain HTTP with those."""

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Registry:
    """Serves ``name`` until it is closed. With ``stalls``, its layer is announced and never comes.

    ``login`` is ``user:password``, where one has to give them.
    """

    def __init__(self, filesystem: bytes, *, stalls: bool = False, login: str | None = None) -> None:
        # Something of its own, or an engine that has these files already would not ask for them.
        filesystem = _with_file(filesystem, "etc/registry", os.urandom(16))
        layer = gzip.compress(filesystem, compresslevel=1, mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Env": ["PATH=/bin:/usr/bin"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(filesystem)]},
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(_CONFIG, config),
                "layers": [_descriptor(_LAYER, layer)],
            }
        ).encode()
        blobs = {_digest(data): data for data in (config, layer)}
        self._closing = threading.Event()
        self.layer_requested = threading.Event()
        self.tag_requests = 0
        registry = self
        expected = None if login is None else "Basic " + base64.b64encode(login.encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = self.path.strip("/").split("/")
                if expected not in (None, self.headers["Authorization"]):
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="test"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                elif self.path == "/v2/":
                    self._send(200, b"{}", "application/json")
                elif parts[:-1] == ["v2", "tiny", "manifests"] and parts[-1] in ("latest", _digest(manifest)):
                    registry.tag_requests += parts[-1] == "latest"
                    self._send(200, manifest, _MANIFEST)
                elif parts[:-1] == ["v2", "tiny", "blobs"] and parts[-1] in blobs:
                    if parts[-1] == _digest(layer):
                        registry.layer_requested.set()
                        if stalls:
                            registry._closing.wait()
                            self.close_connection = True
                            return
                    self._send(200, blobs[parts[-1]], "application/octet-stream")
                else:
                    error = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}
                    self._send(404, json.dumps({"errors": [error]}).encode(), "application/json")

            do_HEAD = do_GET

            def _send(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Docker-Content-Digest", _digest(body))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Engines try TLS first; nobody wants to read of that."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def image(self) -> str:
        """The image that can be pulled."""
        return f"{self.address}/tiny:latest"

    def close(self) -> None:
        """Break off what goes on, and end."""
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _with_file(tar: bytes, name: str, data: bytes) -> bytes:
    buffer = io.BytesIO(tar)
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(data), "digest": _digest(data)}
