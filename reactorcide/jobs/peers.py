"""The services on one database: each says that it lives, sees which others do, and takes turns with them."""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, fields, replace

from reactorcide.domain.errors import ConfigurationError, StoreError
from reactorcide.domain.peers import Peer
from reactorcide.domain.workers import WorkerView
from reactorcide.duties import Duties, Duty
from reactorcide.lib.clock import boottime, now_ms
from reactorcide.lib.silence import Silence
from reactorcide.store import Store
from reactorcide.threads import start_thread

log = logging.getLogger("reactorcide.jobs")

BEAT_EVERY_S = 2.0
_DEAD_AFTER_S = 20.0
"""A living service has missed ten beats by then."""
_FORGET_EVERY_S = 60.0
_VIEW = frozenset(item.name for item in fields(WorkerView))


class Peers:
    """This service among those on its database: see ``Turns``, whose methods it has. Thread-safe.

    ``join`` once, then ``start``; ``leave`` any number of times. Whether another service lives is told by its
    beats, and by the clock of this machine alone; time in which the database could not be asked does not
    count.
    """

    def __init__(
        self,
        store: Store,
        me: Peer,
        worker: Callable[[], WorkerView],
        clock: Callable[[], float] = boottime,
    ) -> None:
        """``worker`` returns what the worker of this service reports."""
        self._store = store
        self._me = me
        self._worker = worker
        self._silence: Silence[str] = Silence(clock)
        self._others: list[Peer] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._duties = Duties(
            [
                Duty("say that this service lives", 0.0, self.look, BEAT_EVERY_S),
                Duty("forget bad tokens", _FORGET_EVERY_S, self._forget, BEAT_EVERY_S),
            ],
            log,
        )

    @property
    def service_id(self) -> str:
        """The id of this service."""
        return self._me.service_id

    def join(self) -> list[Peer]:
        """Add this service to those on the database, and return the others, dead ones too."""
        self._store.peers.join(replace(self._me, worker=self._worker_json()))
        self._silence.look(self._beats)
        return self._others

    def start(self) -> None:
        """Begin to beat."""
        self._thread = start_thread(self._loop, "peers")

    def leave(self, deadline_s: float) -> None:
        """End, and let the others know."""
        self._stopping.set()
        if self._thread is None:
            return
        self._thread.join(deadline_s)
        try:
            self._store.peers.leave(self._me.service_id, self._me.session_id)
        except StoreError as exc:
            log.warning("the other services take this one for dead a little later: %s", exc)

    def views(self) -> list[WorkerView]:
        """Return what the workers of the other services report."""
        return [_view(peer.worker) for peer in self._others]

    @property
    def are_there(self) -> bool:
        """Whether there are other services."""
        return bool(self._others)

    # --- turns ---------------------------------------------------------------------------------

    def others(self, kind: str) -> list[str]:
        """See ``Turns.others``."""
        return self._store.peers.turns_of_others(kind, self.service_id)

    def take(self, kind: str, key: str) -> bool:
        """See ``Turns.take``."""
        return self._store.peers.take_turn(kind, key, self.service_id)

    def give_back(self, kind: str, key: str) -> None:
        """See ``Turns.give_back``."""
        self._store.peers.end_turn(kind, key, self.service_id)

    # --- the thread ----------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._duties.do_due()
            self._stopping.wait(BEAT_EVERY_S)

    def look(self) -> None:
        """Beat once, and see who lives. For one thread; raises ``StoreError``."""

        def beats() -> dict[str, object]:
            if not self._store.peers.beat(self._me.service_id, self._me.session_id, self._worker_json()):
                log.warning("this service was silent for so long that the others took its work over")
                # With the time of all of them begun anew.
                self.join()
            return self._beats()

        silent_s = self._silence.look(beats)
        self._others = [peer for peer in self._others if not self._is_dead(peer, silent_s[peer.service_id])]

    def _beats(self) -> dict[str, object]:
        """Read who is listed besides this service, dead ones too, and return what they say."""
        me = self.service_id
        self._others = [peer for peer in self._store.peers.all() if peer.service_id != me]
        return {peer.service_id: (peer.session_id, peer.beat) for peer in self._others}

    def _is_dead(self, peer: Peer, silent_s: float) -> bool:
        if silent_s <= _DEAD_AFTER_S or not self._store.peers.remove_dead(peer):
            return False
        log.warning(
            "service %s, on %s, is not heard of any more: its work goes to the others",
            peer.service_id,
            peer.host,
        )
        return True

    def _forget(self) -> None:
        self._store.bad_tokens.forget_old(now_ms=now_ms())

    def _worker_json(self) -> str:
        return json.dumps(asdict(self._worker()))


def check_shared(
    me: Peer, others: list[Peer], *, has_bucket: bool, is_running: Callable[[str], bool]
) -> None:
    """Raise ``ConfigurationError`` if this service cannot work beside the others that run.

    An embedded queue and a data directory cannot be reached by them.
    """
    running = [peer for peer in others if is_running(peer.service_id)]
    if not running:
        return
    hosts = " and ".join(sorted({peer.host for peer in running}))
    if me.corndogs_address is None or any(peer.corndogs_address is None for peer in running):
        whose = "this one has" if me.corndogs_address is None else f"the one on {hosts} has"
        raise ConfigurationError(
            f"another service works on this database, on {hosts}, and {whose} its queue in its own data "
            "directory: run 'reactorcide corndogs' (or another Corndogs), and name it to all of them with "
            "--corndogs-address"
        )
    if not has_bucket:
        raise ConfigurationError(
            f"another service works on this database, on {hosts}, and logs and artifacts are in a data "
            "directory, which only one of them can have: name the same bucket to all of them with --objects"
        )


def _view(text: str) -> WorkerView:
    # Another version may report more.
    values = {name: value for name, value in json.loads(text).items() if name in _VIEW}
    return WorkerView(
        **values | {"running_job_ids": tuple(values["running_job_ids"]), "queues": tuple(values["queues"])}
    )
