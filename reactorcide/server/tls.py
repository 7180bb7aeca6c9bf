"""The certificate of ``--tls-cert``."""

import logging
import os
import ssl
from pathlib import Path

log = logging.getLogger("reactorcide.web")


class Certificate:
    """A certificate and its key in files that may be replaced while the service runs."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises ``OSError`` if they cannot be used."""
        self._cert, self._key = cert, key
        self._stamp = self._look()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection: of the current files if usable, else of the last ones."""
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._context = self._load()
                self._stamp = stamp
        except OSError as exc:
            # Perhaps they are just being replaced.
            log.error("the previous certificate stays in use: cannot read %s: %s", self._cert, exc)
        return self._context

    def _look(self) -> list[tuple[int, int, int]]:
        return [(at.st_mtime_ns, at.st_ino, at.st_size) for at in map(os.stat, (self._cert, self._key))]

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Nobody could type a passphrase: a key that has one is an error.
        context.load_cert_chain(self._cert, self._key, password="")
        return context
