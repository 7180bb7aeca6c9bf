"""Telling systemd how far a service is, by the protocol of sd_notify(3)."""

import logging
import os
import socket

log = logging.getLogger("reactorcide.lib.systemd")

_TIMEOUT_S = 5.0


class ServiceManager:
    """Tells systemd the state of this process, if systemd has started it and wants to know."""

    def __init__(self) -> None:
        """Take the address out of the environment: it is neither for libraries nor for other programs."""
        self._address = os.environ.pop("NOTIFY_SOCKET", "")

    def tell(self, state: str) -> None:
        """Send a state, such as ``READY=1``."""
        if not self._address:
            return
        # An abstract socket's name begins with a zero byte, which is written as @.
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_TIMEOUT_S)
                sock.connect(address)
                sock.send(state.encode())
        except OSError as exc:
            log.warning("systemd could not be told %s: %s", state, exc)
