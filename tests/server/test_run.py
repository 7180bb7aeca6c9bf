"""What the process says of itself."""

import pytest

from reactorcide.server import run


@pytest.mark.parametrize(
    ("host", "authority"), [("::1", "[::1]:80"), ("127.0.0.1", "127.0.0.1:80"), ("ci.local", "ci.local:80")]
)
def test_ipv6_address_is_in_brackets(host: str, authority: str) -> None:
    assert run._authority(host, 80) == authority
