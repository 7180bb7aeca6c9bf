"""New SSH keys."""

from reactorcide.imports import late_imports


def new_key(comment: str) -> tuple[str, str]:
    """Return a new Ed25519 key in OpenSSH's formats: its private half, and the public one with a comment."""
    # Imported late: hardly any start needs it.
    with late_imports():
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} {comment}"
