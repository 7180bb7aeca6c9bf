"""The handover of a command to its container: through standard input, after the container has started.

The container starts with the launcher, a few lines of shell that wait for the command. So the state of a
container says nothing about its command. Only the handover decides whether the command runs, and it is
received completely or not at all.

The launcher reads lines and evaluates each as it comes: one for each variable, and one for the command. None
of them has an effect outside of this shell. Then comes the mark, a line with a random value. At the mark the
launcher prints the acknowledgement, on both streams, and becomes the command. If its input ends before the
mark, it ends, too, and nothing has run.

The launcher runs in any POSIX shell, uses builtins alone, and does not rely on its environment:

- What it reads is in a variable with a random name, all else in positional parameters: the image's own
  variables may have any name.
- ``LC_ALL=C`` while it reads, for bash in a UTF-8 locale loses a newline after a stray byte; no ``IFS``; no
  ``TMOUT``, after which bash would stop reading.
- A value is one line, in single quotes, with ``$1`` for a newline. To join lines in a loop takes a time that
  is quadratic in their number.
- What the shell itself prints (an image may set ``SHELLOPTS=xtrace``) goes to ``/dev/null``. The command's
  standard error waits as descriptor 3.
"""

import re
from collections.abc import Mapping

ACKNOWLEDGEMENT = b"[reactorcide] the command has been handed over\n"
"""What the launcher prints to standard output right before it becomes the command."""

MAX_UNACKNOWLEDGED_BYTES = 1 << 20
"""Of output before the acknowledgement. A shell prints some lines at most; but on the other stream the
command's own output may come before the acknowledgement on standard output."""

NOT_HANDED_OVER = 75
"""The launcher's exit code if its input ended before the mark; commands may have the same one."""

# Without the trap the shell dies on SIGTERM and its child is killed unasked; without the variable only
# the shell gets the signal. Only both together let the command clean up. On one line, so that the line
# numbers in the shell's messages stay those of the command.
TRAP = "trap 'exit 143' TERM; "
INIT_ENV = {"TINI_KILL_PROCESS_GROUP": "1"}
"""Read by the container's init, but not by Podman's. The command itself does not see it."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# Names with a special meaning in a shell: some cannot be set, some change what the launcher does, and for
# some a child gets another value.
_SHELL_NAMES = frozenset(
    (
        *("_", "DIRSTACK", "ENV", "EPOCHREALTIME", "EPOCHSECONDS", "EUID", "FUNCNAME", "FUNCNEST", "GROUPS"),
        *("HISTCMD", "IFS", "LINENO", "OLDPWD", "OPTARG", "OPTERR", "OPTIND", "PIPESTATUS", "PPID"),
        *("PS1", "PS2", "PS4", "PWD", "RANDOM", "SECONDS", "SHELLOPTS", "SHLVL", "SRANDOM", "TMOUT", "UID"),
    )
)
_SHELL_PREFIX = "BASH"


def launcher(mark: str) -> list[str]:
    """Return the arguments of ``/bin/sh`` that wait for a handover; ``mark`` is of hex digits."""
    line = f"r{mark}"
    # At the mark, all that the launcher has left in the shell goes, and the descriptors become those of a
    # container without standard input: `docker run` opens /dev/null for reading and writing, too.
    become = f'unset {line}; echo "$3" >&3; echo "$3"; exec /bin/sh -ec "$2" 0<>/dev/null 2>&3 3>&-'
    script = (
        f"{{ unset {' '.join(INIT_ENV)}; "
        f"while LC_ALL=C IFS= TMOUT= read -r {line}; do "
        f'case ${line} in {mark}) {become};; *) eval "${line}";; esac; done; '
        f"exit {NOT_HANDED_OVER}; }} 3>&2 2>/dev/null"
    )
    return ["-c", script, "/bin/sh", "\n", "", ACKNOWLEDGEMENT.decode().rstrip("\n")]


def is_handed_over(name: str) -> bool:
    """Return whether a variable can be handed over; any other must be in the container's configuration."""
    is_special = name in _SHELL_NAMES or name.startswith(_SHELL_PREFIX)
    return _NAME.fullmatch(name) is not None and not is_special


def configured(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are set in the container's configuration instead of the handover."""
    return {name: value for name, value in env.items() if not is_handed_over(name)}


def lines(command: str, env: Mapping[str, str], shell_level: str | None) -> bytes:
    """Return the data of the handover before the mark: variables of ``env``, and the command.

    ``shell_level`` is ``SHLVL`` in the container's configuration. Some shells count it up once more when the
    launcher becomes the command; bash sees to that itself, and is known by its flag for braces.
    """
    parts = [f"export {name}={_quoted(value)}" for name, value in env.items() if is_handed_over(name)]
    level = "unset SHLVL" if shell_level is None else f"export SHLVL={_quoted(shell_level)}"
    parts.append(f"case $- in *B*) ;; *) {level};; esac")
    parts.append(f'set -- "$1" {_quoted(TRAP + command)} "$3"')
    return "".join(f"{part}\n" for part in parts).encode()


def _quoted(text: str) -> str:
    """Return a text as one word of a line of shell, in which ``$1`` is a newline."""
    return "'" + text.replace("'", "'\\''").replace("\n", "'\"$1\"'") + "'"


class AcknowledgementFilter:
    """Takes one stream of a container's output up to the end of its acknowledgement out of it.

    What comes before is the launcher's: a shell that warns when it starts does so twice, for the launcher and
    for the command. The last ``MAX_HELD_BYTES`` of it are kept, to be shown where no acknowledgement comes.
    """

    MAX_HELD_BYTES = 1 << 16

    def __init__(self) -> None:
        self.is_complete = False
        self.held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Return what of ``data`` is the command's."""
        if self.is_complete:
            return data
        # Only what is new can complete it: an image may print byte by byte.
        start = max(0, len(self.held) - len(ACKNOWLEDGEMENT) + 1)
        self.held += data
        position = self.held.find(ACKNOWLEDGEMENT, start)
        if position < 0:
            del self.held[: -self.MAX_HELD_BYTES]
            return b""
        self.is_complete = True
        after = bytes(self.held[position + len(ACKNOWLEDGEMENT) :])
        self.held.clear()
        return after
