"""The job database: a small file for each kind of record, and transactions over all of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from reactorcide.lib import no_drivers  # noqa: F401  # before anything below imports peewee
from reactorcide.store.accounts import Accounts
from reactorcide.store.approvals import Approvals
from reactorcide.store.attempts import Attempts
from reactorcide.store.audit import Audit
from reactorcide.store.bad_tokens import BadTokens
from reactorcide.store.caches import Caches
from reactorcide.store.connection import Connection, JobDatabase
from reactorcide.store.deliveries import Deliveries
from reactorcide.store.events import Events
from reactorcide.store.groups import Groups
from reactorcide.store.images import Images
from reactorcide.store.instance import Instance
from reactorcide.store.jobs import Jobs
from reactorcide.store.leases import Leases
from reactorcide.store.lists import Lists
from reactorcide.store.log_pieces import LogPieces
from reactorcide.store.named_secrets import NamedSecrets
from reactorcide.store.outbox import Outbox
from reactorcide.store.peers import Peers
from reactorcide.store.projects import Projects
from reactorcide.store.queues import Queues
from reactorcide.store.request_keys import RequestKeys
from reactorcide.store.retention import Retention
from reactorcide.store.room import Room
from reactorcide.store.runs import Runs
from reactorcide.store.schedules import Schedules
from reactorcide.store.sealed import SealedFields
from reactorcide.store.sources import Sources
from reactorcide.store.tasks import Tasks
from reactorcide.store.vault import Vault
from reactorcide.store.webhooks import Webhooks
from reactorcide.store.workers import Workers

T = TypeVar("T")


class Records:
    """All kinds of records over one connection; they raise ``StoreError`` if the database fails."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self.jobs = Jobs(db, sealed)
        self.lists = Lists(db, sealed)
        self.attempts = Attempts(db, self.jobs, sealed)
        self.leases = Leases(db, sealed)
        self.workers = Workers(db)
        self.tasks = Tasks(db, sealed)
        self.runs = Runs(db, sealed)
        self.projects = Projects(db, sealed)
        self.schedules = Schedules(db)
        self.outbox = Outbox(db, sealed)
        self.peers = Peers(db)
        self.webhooks = Webhooks(db, sealed)
        self.groups = Groups(db)
        self.room = Room(db)
        self.approvals = Approvals(db)
        self.log_pieces = LogPieces(db)
        self.named_secrets = NamedSecrets(db, sealed)
        self.queues = Queues(db)
        self.events = Events(db, sealed)
        self.request_keys = RequestKeys(db, sealed)
        self.retention = Retention(db, sealed)
        self.images = Images(db)
        self.sources = Sources(db)
        self.caches = Caches(db)
        self.deliveries = Deliveries(db)
        self.accounts = Accounts(db)
        self.bad_tokens = BadTokens(db)
        self.audit = Audit(db)


class Store(Records):
    """The job database. Thread-safe; each write is durable on return.

    A single write, as ``store.jobs.add(job)``, is a transaction of its own. Several that belong together
    are written on the ``tx`` of ``transaction`` or ``write``: all of them, or none.
    """

    def __init__(self, database: JobDatabase, vault: Vault) -> None:
        self._database = database
        sealed = SealedFields(vault)
        super().__init__(database, sealed)
        self.instance = Instance(database, vault, sealed)
        self._tx = Records(database.open_transaction, sealed)

    @contextmanager
    def transaction(self) -> Iterator[Records]:
        """Run the body as one transaction, with what it writes on ``tx`` durable when this returns.

        An error in the body rolls all of it back. Other writers wait, so that the body should be short and
        wait for nothing itself.
        """
        with self._database.transaction():
            yield self._tx

    def write(self, work: Callable[[Records], T]) -> T:
        """Run ``work`` as one transaction and return its result: the fast way for what happens often.

        Of the threads that wait to write one commits for all, so that ``work`` may run on another thread, and
        twice: it must do nothing but read and write on its ``tx``. Errors as with ``transaction``.
        """
        return self._database.write(lambda _: work(self._tx))
