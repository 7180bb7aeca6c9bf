"""Checking that the sender of a delivery knows the project's secret, by constant-time comparisons."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence

from reactorcide.domain.errors import Unauthorized
from reactorcide.forges.payload import Headers

_MAX_SIGNATURES = 10
_MAX_AGE_S = 300
"""The timestamp tolerance of Standard Webhooks."""
_KEY_PREFIX = "whsec_"
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_MISMATCH = "the signature is not one of the project's webhook secret; set that secret in the forge's webhook"


def check_hex(
    headers: Headers, chunks: Iterable[bytes], secrets: Sequence[str], fields: Sequence[tuple[str, str]]
) -> None:
    """Check the HMAC-SHA256 of a body, in hex digits, in the first of these fields that is present.

    A field is its name and what comes before the digits. Raises ``Unauthorized``.
    """
    for name, prefix in fields:
        sent = headers.get(name)
        if sent:
            expected = [f"{prefix}{digest.hexdigest()}".encode() for digest in _digests(chunks, secrets)]
            _check(sent.strip(), expected)
            return
    raise Unauthorized(f"the request has no {fields[0][0]}; set the project's secret in the forge's webhook")


def check_plain(sent: str, secrets: Sequence[str]) -> None:
    """Check a secret that was sent in plain text; raises ``Unauthorized``."""
    _check(sent, [secret.encode() for secret in secrets if secret])


def check_standard(headers: Headers, chunks: Iterable[bytes], secrets: Sequence[str], now_s: float) -> None:
    """Check a signature by Standard Webhooks; raises ``Unauthorized``.

    The key is the Base64 after ``whsec_`` in the secret, or else the secret itself.
    """
    timestamp = headers.get("webhook-timestamp", "")
    if not _TIMESTAMP.fullmatch(timestamp) or abs(now_s - int(timestamp)) > _MAX_AGE_S:
        raise Unauthorized(
            f"webhook-timestamp is not within {_MAX_AGE_S} s of this service's clock; check both clocks"
        )
    start = f"{headers.get('webhook-id', '')}.{timestamp}.".encode("utf-8", "surrogateescape")
    expected = [
        b"v1," + base64.b64encode(digest.digest()) for digest in _digests(chunks, map(_key, secrets), start)
    ]
    signatures = headers.get("webhook-signature", "").split(" ", _MAX_SIGNATURES)[:_MAX_SIGNATURES]
    if not any([_is_one_of(sent, expected) for sent in signatures]):
        raise Unauthorized(_MISMATCH)


def _key(secret: str) -> bytes:
    if secret.startswith(_KEY_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_KEY_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if key:
            return key
    return secret.encode()


def _digests(
    chunks: Iterable[bytes], secrets: Iterable[str | bytes], start: bytes = b""
) -> "list[hmac.HMAC]":
    """Return the HMAC of a text by each secret; the chunks are read once."""
    # Anyone can sign with an empty secret.
    keys = [secret.encode() if isinstance(secret, str) else secret for secret in secrets if secret]
    digests = [hmac.new(key, start, hashlib.sha256) for key in keys]
    for chunk in chunks:
        for digest in digests:
            digest.update(chunk)
    return digests


def _check(sent: str, expected: Sequence[bytes]) -> None:
    if not _is_one_of(sent, expected):
        raise Unauthorized(_MISMATCH)


def _is_one_of(sent: str, expected: Sequence[bytes]) -> bool:
    value = sent.encode("utf-8", "surrogatepass")
    # Compare all of them, so that the time does not reveal which one matches.
    return any([hmac.compare_digest(value, item) for item in expected])
