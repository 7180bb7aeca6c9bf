"""Which clients count as one."""

import pytest

from reactorcide.lib.networks import network_of


@pytest.mark.parametrize(
    ("one", "other", "is_shared"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("unix", "127.0.0.1", False),
    ],
)
def test_an_address_or_an_ipv6_network_of_64_bits_is_one_client(
    one: str, other: str, is_shared: bool
) -> None:
    assert (network_of(one) == network_of(other)) is is_shared
