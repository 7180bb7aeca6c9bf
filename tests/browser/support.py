"""Starting Chromium, signing in, and what pages must never do."""

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Playwright, Request, StorageState

from tests.support.service import Service

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def launch(playwright: Playwright) -> Browser:
    """Start the system's Chromium, without a window.

    Where there is none the tests are skipped, or fail if the environment says that they are required.
    """
    path = next((path for path in map(shutil.which, _NAMES) if path is not None), None)
    if path is None:
        message = "there is no chromium: the tests of the web page did NOT run; install it"
        (pytest.fail if "REACTORCIDE_TEST_BROWSER" in os.environ else pytest.skip)(message)
    return playwright.chromium.launch(
        executable_path=path,
        # Its sandbox cannot be set up by root, nor in most containers.
        args=["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"],
    )


@dataclass
class Watch:
    """What a page did that it must not: errors, dialogs, and requests to others."""

    base_url: str
    problems: list[str] = field(default_factory=list)

    def attach(self, page: Page) -> None:
        """Watch a page from now on."""
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("dialog", self._dialog)
        page.on("console", self._console)
        page.on("request", self._request)

    def _dialog(self, dialog: Dialog) -> None:
        # The page itself asks before it cancels or removes something.
        if not dialog.message.endswith("?"):
            self.problems.append(f"dialog: {dialog.message}")
        dialog.accept()

    def _request(self, request: Request) -> None:
        if not request.url.startswith(self.base_url):
            self.problems.append(f"request: {request.url}")

    def _console(self, message: ConsoleMessage) -> None:
        # A page that is refused, or away, is an error there, too.
        if "Content Security Policy" in message.text:
            self.problems.append(message.text)


class Relay:
    """Passes connections on to a port, until it is cut, and again once it is mended; a proxy of one path."""

    def __init__(self, to: int = 0, removes: str = "") -> None:
        self.to = to
        self.removes = removes
        """The beginning of paths that is removed from requests."""
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.mend()

    def mend(self) -> None:
        """Accept connections."""
        if self._listener.fileno() < 0:
            self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """End all connections, and accept none."""
        for item in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
            item.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self.to))
                self._sockets += [client, server]
                for ends in ((client, server, f" {self.removes}/"), (server, client, " /")):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, path: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                # A browser sends the head of a request at once.
                line, end, rest = data.partition(b"\r\n")
                target.sendall(line.replace(path.encode(), b" /", 1) + end + rest)
            target.shutdown(socket.SHUT_WR)


@contextmanager
def visitor(
    browser: Browser,
    service: Service,
    token: str | None = "",
    *,
    width: int = 1280,
    dark: bool = False,
    scripts: bool = True,
    base_url: str | None = None,
) -> Iterator[Page]:
    """Give a page in a browser profile of its own, signed in as the admin or by a token (``None``: not).

    Afterwards it must have done nothing that no page may do.
    """
    base_url = base_url or service.base_url
    context = browser.new_context(
        storage_state=None
        if token is None
        else _signed_in(browser, service, token or str(service.admin.token)),
        base_url=base_url,
        viewport={"width": width, "height": 800},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        java_script_enabled=scripts,
    )
    watch = Watch(base_url)
    try:
        page = context.new_page()
        page.set_default_timeout(20_000)
        watch.attach(page)
        yield page
    finally:
        context.close()
    assert watch.problems == [], watch.problems


_sessions: dict[str, StorageState] = {}


def _signed_in(browser: Browser, service: Service, token: str) -> StorageState:
    """Return the cookie of a token's session, which is opened once; a host's ports have the same cookies."""
    if token not in _sessions:
        with closing(browser.new_context(base_url=service.base_url)) as context:
            response = context.request.post("/sign-in", form={"token": token}, max_redirects=0)
            assert response.status == 303, response.text()
            _sessions[token] = context.storage_state()
    return _sessions[token]
