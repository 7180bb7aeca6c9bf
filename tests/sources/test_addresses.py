"""Where git may go for the jobs of those who are no admins, and where no repository may send it."""

import ipaddress
import os
import socket
import threading
from pathlib import Path
from time import monotonic

import pytest

from reactorcide.domain.errors import JobFailed, JobInterrupted
from reactorcide.network.addresses import Address, AddressRules, is_loopback

from .support import Attempt, Client, Project, Repository, answering, git_daemon, git_http

RULES = AddressRules().refusal


def names(monkeypatch: pytest.MonkeyPatch, **hosts: str) -> list[str]:
    """Have names of hosts resolve as a test says; returns the names that were looked up."""
    hostnames: list[str] = []

    def resolve(host: str) -> list[Address]:
        hostnames.append(host)
        addresses = hosts.get(host.partition(".")[0].lower(), host)
        try:
            return [ipaddress.ip_address(text) for text in addresses.split(",")]
        except ValueError:
            raise OSError(0, "unknown") from None

    monkeypatch.setattr("reactorcide.sources.git.session.resolve", resolve)
    return hostnames


def refused(client: Client, url: str, **options: object) -> str:
    with pytest.raises(JobFailed) as caught:
        client(url, refusal=RULES, **options)  # type: ignore[arg-type]  # as the test has them
    return str(caught.value)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("0.0.0.0", "loopback"),  # noqa: S104  # not to bind to
        ("::1", "loopback"),
        ("::", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("::7f00:1", "loopback"),
        ("64:ff9b:1::7f00:1", "loopback"),
        ("2001:0:7f00:1::", "loopback"),  # Teredo: the server
        ("2001:0:808:808::80ff:fffe", "loopback"),  # Teredo: the client, 127.0.0.1 inverted
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("10.0.0.1", None),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
    ],
)
def test_loopback_and_link_local_addresses_are_refused(address: str, kind: str | None) -> None:
    problem = RULES(ipaddress.ip_address(address))
    assert problem == (kind and f"a {kind} address")


def test_smallest_matching_network_decides() -> None:
    rules = AddressRules(
        allow=["127.0.0.1", "169.254.0.0/16", "10.1.2.0/24"], deny=["10.0.0.0/8", "10.1.2.3", "0.0.0.0/0"]
    )
    for address, is_refused in {
        "127.0.0.1": False,
        "127.0.0.2": True,
        "169.254.1.1": False,
        "10.1.2.4": False,
        "10.1.2.3": True,
        "10.2.0.0": True,
        "192.0.2.1": True,
        "2001:db8::1": False,
    }.items():
        assert (rules.refusal(ipaddress.ip_address(address)) is not None) is is_refused, address


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/x",
        "http://127.1:{port}/x",
        "http://2130706433:{port}/x",
        "http://0x7f000001:{port}/x",
        "http://0:{port}/x",
        "http://localhost:{port}/x",
        "http://[::1]:{port}/x",
        "http://[::ffff:127.0.0.1]:{port}/x",
        "https://127.0.0.1:{port}/x",
        "git://127.0.0.1:{port}/x",
        "ssh://git@127.0.0.1:{port}/x",
        "git@127.0.0.1:x",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_users_reach_neither_loopback_nor_internal_addresses(
    client: Client, hanging: socket.socket, url: str
) -> None:
    error = refused(client, url.format(port=hanging.getsockname()[1]))
    assert "address, which only the jobs of admins may reach; the operator can allow it with --allow" in error
    hanging.settimeout(0)
    with pytest.raises(BlockingIOError):
        hanging.accept()  # nobody has come


def test_single_refused_address_of_several_refuses(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, both="192.0.2.1,127.0.0.1")
    assert "127.0.0.1 is a loopback address" in refused(client, "http://both.test/x")
    assert "nothing.test has no address (unknown)" in refused(client, "http://nothing.test/x")


def test_git_connects_only_to_the_checked_address(
    origin: Repository, base: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name has no address but here: git itself cannot look for another one."""
    hostnames = names(monkeypatch, forge="127.0.0.1")
    rules = AddressRules(allow=["127.0.0.1"]).refusal
    with git_http(base) as server, git_daemon(base) as daemon:
        port = server.host.partition(":")[2]
        for url in (
            f"http://forge.test:{port}/origin",
            f"http://Forge.TEST:{port}/origin",
            f"http://forge.test.:{port}/origin",
            daemon.replace("127.0.0.1", "forge.test") + "/origin",
        ):
            checkout = client(url, refusal=rules)
            assert (client.file, checkout.url_without_credentials) == ("content", url)
            assert client.git("remote", "get-url", "origin") == url
        with pytest.raises(JobFailed, match=r"write the name of its host in ASCII, as xn--…$"):
            client(f"http://faß.test:{port}/origin", refusal=rules)
    assert {host.lower() for host in hostnames} == {"forge.test", "forge.test."}


def test_hanging_resolver_delays_neither_deadline_nor_cancel(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns a name decides how long its server takes."""
    looking, done = threading.Event(), threading.Event()

    def resolve(host: str) -> list[Address]:
        looking.set()
        done.wait(60)
        return []

    monkeypatch.setattr("reactorcide.sources.git.session.resolve", resolve)
    start_s = monotonic()
    try:
        with pytest.raises(JobFailed, match="preparing took longer than 1 s"):
            client("http://slow.test/x", refusal=RULES, timeout_s=1)
        looking.clear()
        attempt = Attempt()

        def stop() -> None:
            looking.wait(20)
            attempt.stop()

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(JobInterrupted):
            client("http://slow.test/x", refusal=RULES, attempt=attempt)
        stopper.join()
        assert monotonic() - start_s < 40
    finally:
        done.set()


def test_ssh_connects_only_to_the_checked_address(
    origin: Repository, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, real="192.0.2.7", inside="127.0.0.1")
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(
        f'#!/bin/sh\nif [ "$1" = -G ]; then sed -n "s/^$2 //p" {tmp_path}/config; exit; fi\n'
        f'echo "$*" >> {tmp_path}/calls\nfor last; do :; done\nexec sh -c "$last"\n'
    )
    ssh.chmod(0o755)
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    (tmp_path / "config").write_text(
        "alias hostname real.test\nevil hostname inside.test\n"
        "jumping hostname behind.test\njumping proxyjump real.test\n"
    )
    for host, pinned in (
        ("real.test", "-oHostName=192.0.2.7 -oHostKeyAlias=real.test"),
        ("alias", "-oHostName=192.0.2.7 -oHostKeyAlias=real.test"),
        ("jumping", ""),  # its address is for the host to look for that it goes by
    ):
        client(f"git@{host}:{origin.path}", refusal=RULES, env=env)
        calls = (tmp_path / "calls").read_text()
        assert pinned in calls
        assert ("-oHostName" in calls) is bool(pinned)
        (tmp_path / "calls").unlink()
    assert "127.0.0.1 is a loopback address" in refused(client, f"git@evil:{origin.path}", env=env)
    assert not (tmp_path / "calls").exists()


def test_each_redirect_is_checked(
    origin: Repository, base: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, front="127.0.0.1", back="127.0.0.1", inside="127.0.0.2")
    rules = AddressRules(allow=["127.0.0.1"]).refusal
    with git_http(base) as back:
        target = back.url.replace("127.0.0.1", "back.test")
        with git_http(base, redirect=target) as front:
            url = f"{front.url.replace('127.0.0.1', 'front.test')}/origin"
            assert client(url, refusal=rules).url_without_credentials == url
            assert client.file == "content"
            assert "302" not in client.log
    with git_http(base, redirect="http://inside.test") as front, pytest.raises(JobFailed) as caught:
        client(f"{front.url.replace('127.0.0.1', 'front.test')}/origin", refusal=rules)
    assert str(caught.value).startswith(
        "git: cannot reach http://inside.test/origin: 127.0.0.2 is a loopback address, which only"
    )
    for target, reason in (
        ("http://front.test/?x=", "it redirects to a URL that is not of a repository"),
        ("file:///etc", "it redirects to a URL that is not of a repository"),
        ("http://me:gu4rd@front.test/\\x01 ", "it redirects to a URL that is not of a repository"),
    ):
        with git_http(base, redirect=target) as front, pytest.raises(JobFailed, match=reason):
            client(f"{front.url}/origin", refusal=rules)
    with (
        answering(301, b"", Location="/origin/info/refs?service=git-upload-pack") as port,
        pytest.raises(JobFailed, match="was redirected more than 5 times"),
    ):
        client(f"http://127.0.0.1:{port}/origin", refusal=rules)


def test_redirect_to_a_refused_address_is_not_followed(base: Path, client: Client) -> None:
    rules = AddressRules(allow=["127.0.0.1"]).refusal
    with socket.create_server(("127.0.0.2", 0)) as inside:
        target = f"http://127.0.0.2:{inside.getsockname()[1]}"
        with git_http(base, redirect=target) as front, pytest.raises(JobFailed, match="loopback address"):
            client(f"{front.url}/origin", refusal=rules, timeout_s=10)
        inside.settimeout(0)
        with pytest.raises(BlockingIOError):
            inside.accept()


def test_submodule_addresses_are_checked(base: Path, client: Client, hanging: socket.socket) -> None:
    outer = Project(base / "outer")
    for number, url in enumerate((f"http://127.0.0.1:{hanging.getsockname()[1]}/x", "git@[::1]:x")):
        outer.submodule(f"m{number}", url, outer.first)
        message = refused(client, str(outer.path))
        assert message.startswith(f'git: submodule "m{number}": cannot reach ')
        assert "a loopback address, which only the jobs of admins may reach" in message
        outer.back_to(outer.first)


def own_address() -> str:
    """Return an address of this host that others can reach, too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no network")
        address = str(probe.getsockname()[0])
    if is_loopback(ipaddress.ip_address(address)):
        pytest.skip("this host has no network")
    return address


def test_remote_repository_with_a_submodule_on_loopback_is_refused(base: Path, client: Client) -> None:
    """Whoever runs it, and however it gets there."""
    inner, outer = Project(base / "inner"), Project(base / "outer")
    with git_http(base, address=own_address()) as elsewhere, git_http(base) as here:
        url = f"{elsewhere.url}/outer"
        outer.submodule("fine", "../inner", inner.first)
        client(url)
        assert (client.into / "fine" / "file").exists()
        outer.submodule("bad", f"{here.url}/inner", inner.first)
        with pytest.raises(JobFailed) as caught:
            client(url)
        assert str(caught.value) == (
            f'git: submodule "bad": cannot reach {here.url}/inner: '
            "a repository of another host may name none on a loopback address (127.0.0.1)"
        )
        with git_http(base, redirect=here.url, address=elsewhere.host.partition(":")[0]) as front:
            outer.back_to(outer.first)
            outer.submodule("led", f"{front.url}/inner", inner.first)
            with pytest.raises(JobFailed, match="may name none on a loopback address"):
                client(url)
            # One that is here itself may.
            client(f"{here.url}/outer")
            assert (client.into / "led" / "file").exists()


def test_rebinding_name_to_loopback_is_refused(
    base: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns a name answers something else the second time; nobody has refused an address before."""
    inner, outer = Project(base / "inner"), Project(base / "outer")
    answers = [own_address()]
    hostnames: list[str] = []

    def resolve(host: str) -> list[Address]:
        hostnames.append(host)
        if host != "evil.test":
            return [ipaddress.ip_address(host)]
        return [ipaddress.ip_address(answers.pop() if answers else "127.0.0.1")]

    monkeypatch.setattr("reactorcide.sources.git.session.resolve", resolve)
    with git_http(base, address=answers[0]) as elsewhere, git_http(base) as here:
        outer.submodule("bad", f"{here.url}/inner", inner.first)
        with pytest.raises(JobFailed, match="a repository of another host may name none on a loopback"):
            client(f"http://evil.test:{elsewhere.host.partition(':')[2]}/outer")
    assert hostnames == ["evil.test", "127.0.0.1"]


def test_proxy_resolves_the_name_itself(client: Client) -> None:
    with answering(404, b"") as port:
        env = {"PATH": os.environ["PATH"], "http_proxy": f"http://127.0.0.1:{port}"}
        message = refused(client, "http://repositories.invalid/x", env=env)
        assert "not found" in message
        assert "loopback" in refused(client, "http://127.0.0.1/x", env=env)


def test_trace_of_git_is_removed(origin: Repository, base: Path, client: Client) -> None:
    rules = AddressRules(allow=["127.0.0.1"]).refusal
    with git_http(base, login="me:gu4rd-of-trace") as server:
        client(f"http://me:gu4rd-of-trace@{server.host}/origin", refusal=rules)
    assert "gu4rd" not in client.log
    assert b"gu4rd" not in client.everything_below_git()
