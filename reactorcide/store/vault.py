"""Encrypting what is secret in the database, with a key that lies beside it.

AES-256-GCM with the job's id as associated data: what is encrypted belongs to its row, and cannot be put into
another one. Whoever has both files can read everything; whoever has only the database cannot.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Any

from reactorcide.domain.errors import ConfigurationError, StoreError

_KEY_BYTES = 32
# Random ones may be drawn some billions of times for one key (NIST SP 800-38D, 8.3).
_NONCE_BYTES = 12


class Vault:
    """The key in a file of the operator's own. ``load`` or ``create`` first; then thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = b""

    @classmethod
    def beside(cls, database: Path) -> "Vault":
        """Return the vault of a database's file, beside which its key lies."""
        return cls(database.with_name("secret-key"))

    def load(self) -> bool:
        """Read the key; returns whether there is one. Raises ``ConfigurationError`` if it is no key."""
        try:
            key = bytes.fromhex(self.path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as exc:
            raise ConfigurationError(f"the key in {self.path} cannot be read: {exc}") from exc
        if len(key) != _KEY_BYTES:
            raise ConfigurationError(f"the key in {self.path} has {len(key)} bytes, and not {_KEY_BYTES}")
        self._key = key
        return True

    def create(self) -> None:
        """Create a key; it is on disk, under its name, when this returns. Raises ``ConfigurationError``."""
        key = secrets.token_bytes(_KEY_BYTES)
        temporary = self.path.with_name(self.path.name + ".new")
        try:
            # A start that was cut off may have left one; nothing was ever encrypted with it.
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(key.hex() + "\n")
                file.flush()
                os.fsync(descriptor)
            temporary.rename(self.path)
            _sync_directory(self.path.parent)
        except OSError as exc:
            raise ConfigurationError(f"the key {self.path} cannot be made: {exc.strerror}") from exc
        self._key = key

    def successor(self) -> "Vault":
        """Return the vault of the key that is to take the place of this one; it lies beside it until then."""
        return Vault(self.path.with_name(self.path.name + ".next"))

    def replace_by(self, other: "Vault") -> None:
        """Move the key of another vault into the place of this one; it is on disk when this returns.

        Raises ``ConfigurationError``.
        """
        try:
            os.replace(other.path, self.path)
            _sync_directory(self.path.parent)
        except OSError as exc:
            raise ConfigurationError(f"the key {self.path} cannot be replaced: {exc.strerror}") from exc
        self._key = other._key

    @property
    def fingerprint(self) -> bytes:
        """What tells this key from another one, and nothing about it."""
        return hashlib.sha256(b"reactorcide secret-key\0" + self._key).digest()

    def mac(self, data: bytes) -> bytes:
        """Return what tells ``data`` from all else, to whoever has the key."""
        return hmac.digest(self._loaded(), b"reactorcide mac\0" + data, "sha256")

    def encrypt(self, text: str, job_id: str) -> bytes:
        """Encrypt what belongs to a job."""
        return self._encrypted(secrets.token_bytes(_NONCE_BYTES), text, job_id)

    def seal(self, text: str, owner: str) -> bytes:
        """Encrypt what belongs to ``owner``, each time to the same; ``decrypt`` opens it."""
        return self._encrypted(self.mac(f"{owner}\0{text}".encode())[:_NONCE_BYTES], text, owner)

    def _encrypted(self, nonce: bytes, text: str, job_id: str) -> bytes:
        encrypted: bytes = self._cipher().encrypt(nonce, text.encode(), job_id.encode())
        return nonce + encrypted

    def decrypt(self, data: bytes, job_id: str) -> str:
        """Return what was encrypted; raises ``StoreError`` if that is damaged, or another job's."""
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
        # Imported late: it takes longer than all else that a start without secrets does here.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._loaded())

    def _loaded(self) -> bytes:
        if not self._key:
            raise StoreError("the key for the secrets in the database has not been loaded")
        return self._key


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
