"""Encryption of the secrets in the database, with a key stored beside it.

AES-256-GCM with the owner's id as associated data, so that a value cannot be moved to another row. With both
files everything can be read; with only the database nothing can.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Any

from reactorcide.domain.errors import ConfigurationError, StoreError
from reactorcide.imports import late_imports
from reactorcide.lib.files import create_private, sync_directory

_KEY_BYTES = 32
# Random ones may be drawn some billions of times for one key (NIST SP 800-38D, 8.3).
_NONCE_BYTES = 12


class Vault:
    """The key in a private file of the operator. Call ``load`` or ``create`` first; then thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = b""

    @classmethod
    def beside(cls, database: Path) -> "Vault":
        """Return the vault of a database file; its key is stored beside it."""
        return cls(database.with_name("secret-key"))

    def load(self) -> bool:
        """Read the key; returns whether there is one. Raises ``ConfigurationError`` if it is no key."""
        try:
            key = bytes.fromhex(self.path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise ConfigurationError(f"the key in {self.path} cannot be read: {exc.strerror}") from exc
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise ConfigurationError(
                f"the key in {self.path} is not one of {_KEY_BYTES} bytes, as hexadecimal digits; put back "
                "the one that belongs to the database, as from a backup"
            )
        self._key = key
        return True

    def create(self) -> None:
        """Create a key; it is on disk, under its name, when this returns. Raises ``ConfigurationError``."""
        key = secrets.token_bytes(_KEY_BYTES)
        try:
            # One that an interrupted start has left encrypts nothing.
            create_private(self.path, key.hex())
        except OSError as exc:
            raise ConfigurationError(f"the key {self.path} cannot be created: {exc.strerror}") from exc
        self._key = key

    def successor(self) -> "Vault":
        """Return the vault of the key that will replace this one; it is stored beside it until then."""
        return Vault(self.path.with_name(self.path.name + ".next"))

    def replace_by(self, other: "Vault") -> None:
        """Replace this key with that of another vault; it is on disk when this returns.

        Raises ``ConfigurationError``.
        """
        try:
            os.replace(other.path, self.path)
            sync_directory(self.path.parent)
        except OSError as exc:
            raise ConfigurationError(f"the key {self.path} cannot be replaced: {exc.strerror}") from exc
        self._key = other._key

    @property
    def fingerprint(self) -> bytes:
        """A fingerprint that identifies this key and reveals nothing about it."""
        return hashlib.sha256(b"reactorcide secret-key\0" + self._key).digest()

    def mac(self, data: bytes) -> bytes:
        """Return a message authentication code of ``data`` by the key."""
        return hmac.digest(self._loaded(), b"reactorcide mac\0" + data, "sha256")

    def encrypt(self, text: str, job_id: str) -> bytes:
        """Encrypt data, bound to a job."""
        return self._encrypted(secrets.token_bytes(_NONCE_BYTES), text, job_id)

    def seal(self, text: str, owner: str) -> bytes:
        """Encrypt data, bound to ``owner``, always to the same result; ``decrypt`` decrypts it."""
        return self._encrypted(self.mac(f"{owner}\0{text}".encode())[:_NONCE_BYTES], text, owner)

    def _encrypted(self, nonce: bytes, text: str, job_id: str) -> bytes:
        encrypted: bytes = self._cipher().encrypt(nonce, text.encode(), job_id.encode())
        return nonce + encrypted

    def decrypt(self, data: bytes, job_id: str) -> str:
        """Decrypt data; raises ``StoreError`` if it is damaged, or belongs to another owner."""
        with late_imports():
            from cryptography.exceptions import InvalidTag

        nonce, encrypted = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        try:
            decrypted: bytes = self._cipher().decrypt(nonce, encrypted, job_id.encode())
        except (InvalidTag, ValueError) as exc:
            raise StoreError(
                f"the secrets of job {job_id} are damaged in the database; restore it from a backup, "
                "or delete the job's row"
            ) from exc
        return decrypted.decode()

    def _cipher(self) -> Any:
        # Imported late: it takes longer than everything else here, and a start without secrets does not need
        # it.
        with late_imports():
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._loaded())

    def _loaded(self) -> bytes:
        if not self._key:
            raise StoreError("the key for the secrets in the database has not been loaded")
        return self._key
