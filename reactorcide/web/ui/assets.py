"""The page's scripts, styles and icons, served from memory at an address that changes with their content."""

import gzip
import hashlib
from importlib.resources import files

from flask import Response, request, url_for
from werkzeug.exceptions import NotFound

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Assets:
    """All files of ``static/``. They import each other by relative addresses, so all have one version."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[str, bytes, bytes]] = {}
        digest = hashlib.sha256()
        for file in sorted(files(__package__).joinpath("static").iterdir(), key=lambda item: item.name):
            suffix = file.name[file.name.rfind(".") :]
            if suffix not in _TYPES:
                continue
            content = file.read_bytes()
            digest.update(content)
            self._files[file.name] = (_TYPES[suffix], content, gzip.compress(content, mtime=0))
        self.version = digest.hexdigest()[:12]

    def url(self, name: str) -> str:
        """Return the address of a file."""
        return url_for("ui.static", version=self.version, name=name)

    def answer(self, version: str, name: str) -> Response:
        """Return a file. A tab that was opened before an update gets the new files by their old address."""
        if name not in self._files:
            raise NotFound
        mimetype, content, packed = self._files[name]
        takes_gzip = request.accept_encodings.quality("gzip") > 0
        response = Response(packed if takes_gzip else content, mimetype=mimetype)
        response.vary.add("Accept-Encoding")
        if takes_gzip:
            response.headers["Content-Encoding"] = "gzip"
        is_current = version == self.version
        response.headers["Cache-Control"] = (
            "public, max-age=31536000, immutable" if is_current else "no-cache"
        )
        return response
