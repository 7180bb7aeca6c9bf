"""A self-signed certificate for this host, from openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """Two PEM files."""

    cert: Path
    key: Path


def make_certificate(directory: Path, name: str = "tls", *, passphrase: str | None = None) -> Certificate:
    """Make a certificate for 127.0.0.1 and localhost."""
    certificate = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    key = ["-noenc"] if passphrase is None else ["-passout", f"pass:{passphrase}"]
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-days", "2", "-subj", "/CN=localhost", *key),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-keyout", str(certificate.key), "-out", str(certificate.cert)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate
