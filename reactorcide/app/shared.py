"""What a service has beside its own parts where others may work on the same database."""

import re
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from reactorcide import __version__
from reactorcide.domain.errors import ConfigurationError
from reactorcide.domain.peers import Alone, Peer, Turns
from reactorcide.domain.workers import WorkerView
from reactorcide.jobs.hints import WorkerHints
from reactorcide.jobs.peers import Peers, check_shared
from reactorcide.lib.files import create_private
from reactorcide.lib.ids import new_id
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.settings import Settings
from reactorcide.store import Store
from reactorcide.worker.local import Shared

if TYPE_CHECKING:
    from reactorcide.store.hints import HintLine

_ID = re.compile(r"[0-9a-f]{8}")


class Sharing:
    """Lets this service share its database; without one to share it does nothing at all.

    ``start`` once, after the migrations; ``stop`` any number of times. Has the methods of ``Turns``.
    """

    def __init__(
        self, settings: Settings, line: "Callable[[Callable[[str], None]], HintLine] | None"
    ) -> None:
        """``line`` makes the connection for hints; ``None`` for a database that cannot be shared."""
        forward = None if line is None else self._forward
        self.notifier = LocalNotifier(forward)
        self.hints = WorkerHints(forward)
        self._settings = settings
        self._line = None if line is None else line(self._heard)
        self._id: str | None = None
        self._peers: Peers | None = None
        self._turns: Turns = Alone()
        self.worker: Shared | None = None
        """What this service's worker knows of the others; ``None`` if there can be none."""
        if self._line is not None:
            self.worker = Shared(
                service_id=self._service_id,
                has_others=lambda: self._peers is not None and self._peers.are_there,
                lost_after_s=settings.lost_after_s,
            )

    def start(self, store: Store, worker: Callable[[], WorkerView]) -> None:
        """Join the services on the database. Raises ``ConfigurationError`` if this one may not."""
        if self._line is None:
            return
        service_id = self._service_id()
        self._line.start(service_id)
        me = Peer(
            service_id=service_id,
            session_id=new_id(),
            host=socket.gethostname()[:255] or "unknown",
            version=__version__,
            corndogs_address=self._settings.corndogs_address,
            beat=0,
            worker="{}",
        )
        peers = Peers(store, me, worker)
        others = peers.join()
        has_bucket = self._settings.objects is not None
        try:
            check_shared(me, others, has_bucket=has_bucket, is_running=self._is_running)
        except ConfigurationError:
            store.peers.leave(me.service_id, me.session_id)
            raise
        self._peers = self._turns = peers
        peers.start()

    def stop(self, deadline_s: float) -> None:
        """Leave the others."""
        if self._peers is not None:
            self._peers.leave(deadline_s)
        if self._line is not None:
            self._line.stop(deadline_s)

    def others_run(self) -> bool:
        """Return whether other services run on the database; also before the start."""
        if self._line is None:
            return False
        return bool(self._line.running() - {self._line.number_of(self._service_id())})

    def views(self) -> list[WorkerView]:
        """Return what the workers of the other services report."""
        return [] if self._peers is None else self._peers.views()

    # --- turns ---------------------------------------------------------------------------------

    def others(self, kind: str) -> list[str]:
        """See ``Turns.others``."""
        return self._turns.others(kind)

    def take(self, kind: str, key: str) -> bool:
        """See ``Turns.take``."""
        return self._turns.take(kind, key)

    def give_back(self, kind: str, key: str) -> None:
        """See ``Turns.give_back``."""
        self._turns.give_back(kind, key)

    # --- hints ---------------------------------------------------------------------------------

    def _forward(self, hint: str) -> None:
        if self._line is not None and self._peers is not None and self._peers.are_there:
            self._line.send(hint)

    def _heard(self, hint: str) -> None:
        if not self.hints.hear(hint):
            self.notifier.hear(hint)

    def _is_running(self, service_id: str) -> bool:
        return self._line is not None and self._line.number_of(service_id) in self._line.running()

    def _service_id(self) -> str:
        if self._id is None:
            self._id = service_id(self._settings.service_id_path)
        return self._id


def service_id(path: Path) -> str:
    """Return the id of the service of a data directory; the first call creates it.

    Raises ``ConfigurationError``.
    """
    try:
        if not path.exists():
            create_private(path, secrets.token_hex(4))
        value = path.read_text("ascii").strip()
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"the id of this service in {path} cannot be read: {exc}") from exc
    if not _ID.fullmatch(value):
        raise ConfigurationError(
            f"the id of this service in {path} is none; remove the file, and start again"
        )
    return value
