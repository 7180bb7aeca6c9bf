"""The address of a repository, and whether git may connect to it."""

import ipaddress
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urljoin

from reactorcide.domain.errors import InvalidInput, JobFailed
from reactorcide.network.addresses import Address, is_loopback
from reactorcide.sources.git.session import SSH, Refusal, Session
from reactorcide.sources.urls import GitUrl

# From the environment, because the list of processes shows arguments.
_CREDENTIALS = """!f() {{ printf '%s\\n' "$GIT_SOURCE_LOGIN_{number}"; }}; f"""
_REFS = "/info/refs?service=git-upload-pack"
_MAX_TRACE_BYTES = 1 << 20
_TRACED = re.compile(rb"<= Recv header: (?:HTTP/\S+ (\d+)|location: (\S+))", re.IGNORECASE)
_SSH_WITHOUT_KEYS = f"{SSH} -F none -oIdentityAgent=none -oIdentityFile=none -oIdentitiesOnly=yes"
_NOWHERE = "192.0.2.1"
"""An address that no host has (RFC 5737)."""


class Remote:
    """The repository that git fetches from, with its credentials.

    ``argument`` is git's argument for the URL, and ``env`` its environment. For a submodule, ``parent`` is
    the remote of the repository that has it, whose credentials are used for the same server.
    """

    def __init__(self, session: Session, into: Path, url: str, parent: "Remote | None") -> None:
        self._session = session
        self._into = into
        self._parent = parent
        self.url = GitUrl.parse(url)
        # A user name without a password may not be a login: servers show such URLs for copying.
        own = [] if self.url.username is None else [self.url]
        self._is_stranger = parent is not None and not session.shares_credentials
        others = parent._logins if parent and session.shares_credentials else []
        self._logins: list[GitUrl] = [*own, *others] if self.url.password else [*others, *own]
        self._go_to(self.url)

    def _go_to(self, url: GitUrl) -> None:
        """Use ``url`` from now on, if all its addresses are allowed; raises ``JobFailed`` otherwise.

        A name is resolved only here: git gets the address, so that it connects to the checked one, and the
        same address decides what the repository may name as a submodule.
        """
        self._at = url
        self._addresses: list[Address] = []
        self.env = self._session.env | self._environment({})
        if self._is_stranger:
            self.env["GIT_SSH_COMMAND"] = _SSH_WITHOUT_KEYS
        # With "/." git uses exactly this directory. Otherwise it would try <path>.git as well, which for a
        # source root is outside of it.
        self.argument = url.clean if url.local_path is None else f"{url.local_path}/."
        if url.local_path is not None:
            return
        if not url.host.isascii():
            # There are several encodings for DNS, and git's may differ from Python's.
            raise JobFailed(f"git: cannot reach {url}: write the name of its host in ASCII, as xn--…")
        options = self._ssh_options(url) if url.protocols == ("ssh",) else {}
        host = options.get("hostname", url.host)
        # A host behind a proxy may have no address here.
        is_proxied = self._has_proxy(url, options)
        addresses = self._resolve(url, host, is_optional=is_proxied)
        for address in addresses:
            for refusal in self._refusals():
                if (problem := refusal(address)) is not None:
                    raise JobFailed(f"git: cannot reach {url}: {problem}")
        self._addresses = addresses
        if url.protocols == ("ssh",):
            alias = options.get("hostkeyalias", host if url.port in (None, 22) else f"[{host}]:{url.port}")
            if self._may_use_key(url):
                self.env["GIT_SSH_COMMAND"] = self._session.ssh(alias, cwd=self._into)
            if not is_proxied:
                pinned = (f"-oHostName={addresses[0]}", f"-oHostKeyAlias={alias}")
                self.env["GIT_SSH_COMMAND"] += f" {shlex.join(pinned)}"
        elif url.protocols == ("git",):
            host_part = f"[{addresses[0]}]" if addresses[0].version == 6 else str(addresses[0])
            port = "" if url.port is None else f":{url.port}"
            self.argument = f"git://{host_part}{port}{url.path}"
            self.env["GIT_OVERRIDE_VIRTUAL_HOST"] = url.root.removeprefix("git://")
        else:
            port_number = url.port or (443 if url.root.startswith("https:") else 80)
            where = ",".join(map(str, addresses)) or _NOWHERE
            settings = {"http.followRedirects": "false"}
            if not _is_address(url.host):
                settings["http.curloptResolve"] = f"{url.host}:{port_number}:{where}"
            self.env |= self._environment(settings)
            self.env |= {"GIT_TRACE_CURL": str(self._session.trace), "GIT_TRACE_CURL_NO_DATA": "1"}

    def _refusals(self) -> list[Refusal]:
        refusals: list[Refusal] = []
        rule = self._session.refusal
        if rule is not None:

            def refused(address: Address) -> str | None:
                problem = rule(address)
                return problem and (
                    f"{address} is {problem}, which only the jobs of admins may reach; "
                    f"the operator can allow it with --allow-address {address}"
                )

            refusals.append(refused)
        parent = self._parent
        if parent is not None and parent._at.local_path is None:

            def refused_from_elsewhere(address: Address) -> str | None:
                if is_loopback(address) and not parent._is_here():
                    return f"a repository of another host may name none on a loopback address ({address})"
                return None

            refusals.append(refused_from_elsewhere)
        return refusals

    def _may_use_key(self, url: GitUrl) -> bool:
        """Return whether a deploy key is for the server of an ssh URL: that of the first repository."""
        first = self
        while first._parent is not None:
            first = first._parent
        return not self._is_stranger and (url.host, url.port) == (first.url.host, first.url.port)

    def _is_here(self) -> bool:
        """Return whether the repository is on this host."""
        is_local = self._at.local_path is not None
        return is_local or (bool(self._addresses) and all(map(is_loopback, self._addresses)))

    def _resolve(self, url: GitUrl, host: str, *, is_optional: bool) -> list[Address]:
        try:
            return self._session.resolve(host)
        except OSError as error:
            if error.errno is not None and error.errno > 0:
                # A failure of this system, not an answer of the resolver.
                raise
            if is_optional:
                return []
            raise JobFailed(
                f"git: cannot reach {url}: {host} has no address ({error.strerror or error})"
            ) from error

    def _has_proxy(self, url: GitUrl, ssh_options: Mapping[str, str]) -> bool:
        if url.protocols == ("ssh",):
            return any(ssh_options.get(name, "none") != "none" for name in ("proxyjump", "proxycommand"))
        scheme = url.root.partition(":")[0]
        names = (f"{scheme}_proxy", "all_proxy")
        return any(self.env.get(name) or self.env.get(name.upper()) for name in names)

    def _ssh_options(self, url: GitUrl) -> dict[str, str]:
        """Return ssh's configuration for this host, such as another host name."""
        program = shutil.which("ssh", path=self.env.get("PATH", os.defpath))
        if program is None:
            return {}
        lines: list[bytes] = []
        port = () if url.port is None else ("-p", str(url.port))
        config = ("-F", "none") if self._is_stranger else ()
        code = self._session.run(
            [program, "-G", *config, *port, url.host],
            cwd=self._into,
            env=self.env,
            stdout=lines.append,
            stderr=lambda line: None,
        )
        if code:
            # Then the host name is used as it is.
            return {}
        pairs = (line.decode(errors="surrogateescape").partition(" ") for line in lines)
        return {name: value for name, _, value in pairs}

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        pairs = list(settings.items())
        env = {"GIT_ALLOW_PROTOCOL": ":".join(self._at.protocols)}
        # git uses each only for its server, also after a redirect, and the first one first.
        for number, login in enumerate(self._logins):
            pairs.append((f"credential.{login.server}.helper", _CREDENTIALS.format(number=number)))
            env[f"GIT_SOURCE_LOGIN_{number}"] = f"username={login.username}\npassword={login.password}"
        for number, (name, value) in enumerate(pairs):
            env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        return env | {"GIT_CONFIG_COUNT": str(len(pairs))}

    def follow_redirect(self) -> bool:
        """Use the target of the last answer, if it was a redirect, and return whether it was.

        Raises ``JobFailed`` if the target may not be used.
        """
        try:
            with self._session.trace.open("rb") as file:
                trace = file.read(_MAX_TRACE_BYTES)
        except FileNotFoundError:
            return False
        status, location = b"", b""
        for header in _TRACED.finditer(trace):
            status, location = (header[1], b"") if header[1] else (status, header[2])
        if not (status.startswith(b"3") and location):
            return False
        target = urljoin(self._at.clean + _REFS, location.decode(errors="replace"))
        base = target.removesuffix(_REFS)
        if not base.startswith(("http://", "https://")) or base == target or {"?", "#"} & set(base):
            raise JobFailed(
                f"git: cannot reach {self.url}: it redirects to a URL that is not of a repository"
            )
        try:
            # Credentials in it are not used.
            url = GitUrl.parse(GitUrl.parse(base).clean)
        except InvalidInput as error:
            raise JobFailed(f"git: cannot reach {self.url}: it redirects to a bad URL") from error
        self._go_to(url)
        return True


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
