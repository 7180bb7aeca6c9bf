"""``Service`` creates and connects all parts, starts and stops them."""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from reactorcide.accounts import AccountContext, sessions, tokens, users
from reactorcide.app import parts
from reactorcide.app.shared import Sharing
from reactorcide.domain.deliveries import MAX_LARGE_AT_ONCE
from reactorcide.domain.errors import ReactorcideError
from reactorcide.domain.workers import WorkerView
from reactorcide.jobs import JobContext, place
from reactorcide.jobs.remote import registry
from reactorcide.jobs.remote.artifacts import StoredArtifacts
from reactorcide.jobs.remote.attempts import LeasedAttempts
from reactorcide.jobs.remote.dispatch import Dispatcher
from reactorcide.jobs.remote.lost import LostAttempts
from reactorcide.jobs.sealing import Sealing
from reactorcide.jobs.upkeep import QueueUpkeep
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id
from reactorcide.metrics import Metrics
from reactorcide.network.addresses import AddressRules
from reactorcide.objects import MAX_READS_AT_ONCE
from reactorcide.objects.filesystem import check_room
from reactorcide.outbox.commit_statuses import CommitStatuses
from reactorcide.outbox.sender import Sender
from reactorcide.outbox.webhooks import Announcer, WebhookMessages
from reactorcide.runs import RunContext
from reactorcide.runs.evaluate import Evaluator
from reactorcide.runs.upkeep import RunUpkeep
from reactorcide.schedules.start import Due
from reactorcide.settings import Settings
from reactorcide.store import Store
from reactorcide.store.outbox import STATUSES, WEBHOOKS
from reactorcide.store.vault import Vault
from reactorcide.worker.deliverer import Deliverer
from reactorcide.worker.janitor import Janitor, remove_orphans
from reactorcide.worker.local import LocalPort, lost_duties, queue_duties, run_duties
from reactorcide.worker.loop import Worker
from reactorcide.worker.scheduler import Scheduler

if TYPE_CHECKING:
    from flask import Flask


log = logging.getLogger("reactorcide.app")

_AWAY_AFTER_S = 90.0
"""A worker on another machine calls at least twice in this time."""


class Service:
    """API, worker and queue. ``start`` once, ``stop`` any number of times; ``stop`` leaves nothing open."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        """Wire the parts together; nothing is started, opened or connected yet.

        ``environment`` has the engine's address and git's certificates. Raises ``ConfigurationError`` for
        invalid settings.
        """
        settings = replace(settings, data_dir=settings.data_dir.absolute())
        self._settings = settings
        self._environment = environment
        metrics = Metrics()
        self._queue = parts.queue(settings, metrics)
        self._database = parts.database(settings)
        self._sharing = Sharing(settings, parts.hint_line(settings))
        self._notifier = self._sharing.notifier
        self._store = Store(self._database, Vault.beside(settings.database_path))
        self._accounts = AccountContext(self._store)
        self._objects = parts.object_store(settings, settings.objects, environment)
        self._logs = parts.log_store(settings, self._store.log_pieces, self._objects)
        self._runner = parts.deferred_runner(settings, environment)
        preparation = parts.preparation(settings, environment, parts.admins(self._store.accounts))
        self._context = JobContext(
            store=self._store,
            objects=self._objects,
            logs=self._logs,
            notifier=self._notifier,
            metrics=metrics,
            corndogs=self._queue.corndogs,
            rules=preparation.rules,
            hints=self._sharing.hints,
            sealing=Sealing(self._store, self._logs, self._objects),
        )
        self._runs = RunContext(
            jobs=self._context,
            commits=preparation,
            evaluator=Evaluator(),
            defaults=parts.job_defaults(settings),
        )
        self._leased = LeasedAttempts(
            self._context,
            lease_s=settings.lease_s,
            max_log_bytes=settings.max_log_bytes,
            artifacts=StoredArtifacts(self._context.objects, parts.limits_of_remote_workers(settings)),
        )
        self._dispatcher = Dispatcher(self._context, lease_s=settings.lease_s)
        port = LocalPort(self._context, lease_s=settings.lease_s, shared=self._sharing.worker)
        lost = LostAttempts(
            self._context,
            self._leased,
            grace_s=settings.cancel_grace_s,
            own_worker_id=lambda: port.worker_id,
            lease_s=settings.lease_s,
        )
        self._worker = Worker(
            port,
            self._runner,
            preparation,
            parts.limits(settings),
            concurrency=settings.concurrency,
            queues=settings.queues,
            check_disk=self._check_room,
            duties=[
                *queue_duties(QueueUpkeep(self._context, lease_s=settings.lease_s, turns=self._sharing)),
                *run_duties(RunUpkeep(self._context)),
                *lost_duties(lost),
            ],
        )
        self._scheduler = Scheduler(Due(self._runs))
        self._deliverer = Deliverer(self._runs, self._sharing)
        self._janitor = Janitor(
            self._context,
            self._runner,
            parts.keep_policy(settings),
            keep_image_days=settings.keep_image_days,
            keep_source_days=settings.keep_source_days,
            max_cache_bytes=settings.max_cache_bytes,
            engine=lambda: port.engine,
        )
        self._http = parts.deferred_http(AddressRules(settings.allow_addresses, settings.deny_addresses))
        public_url = None if settings.public_url is None else settings.public_url.rstrip("/")
        self._sender = Sender(
            self._store,
            {
                STATUSES: CommitStatuses(self._store, self._http, public_url),
                WEBHOOKS: WebhookMessages(self._store, parts.deferred_http(parts.webhook_rules(settings))),
            },
            self._notifier,
            metrics,
            announce=Announcer(self._store, public_url).announce,
            turns=self._sharing,
        )
        metrics.add_job_counts(self._store.queues.counts)
        metrics.add_owed_counts(self._store.outbox.counts)
        metrics.add_warm_counts(self._warm_counts)
        self.wsgi: Flask = self._web(metrics)
        self.new_admin_token: str | None = None
        """The admin's token, if this start created it."""

    def start(self) -> None:
        """Start all parts; raises ``ConfigurationError`` if one of them cannot start."""
        self._database.migrate()
        self._store.instance.id(new_id())
        self._sharing.start(self._store, self._worker.view)
        try:
            self._start_parts()
        except BaseException:
            self._sharing.stop(1.0)
            raise

    def _start_parts(self) -> None:
        if place.check(self._context, self._settings.objects, self._settings.objects_dir):
            self._remove_leftovers()
        self._store.instance.open_vault(self._sharing.others_run)
        if not self._sharing.others_run():
            # Those of other services are in progress.
            self._store.tasks.submit_interrupted()
        self.new_admin_token = users.bootstrap(self._accounts, self._settings.admin_token_path)
        self._queue.start()
        self._context.sealing.start()
        self._worker.start()
        self._dispatcher.start()
        self._janitor.start()
        self._scheduler.start()
        self._deliverer.start()
        self._sender.start()

    def sign_in_link(self) -> str | None:
        """Create a one-time link for the admin whose token is in the data directory, and return its value.

        ``None`` if there is no web page, or no such token (any more).
        """
        if self._settings.no_ui:
            return None
        try:
            value = self._settings.admin_token_path.read_text("ascii").strip()
            return sessions.create_link(self._accounts, tokens.authenticate(self._accounts, value))[0]
        except (OSError, ValueError, ReactorcideError):
            return None

    def drain(self, drained: Callable[[], None]) -> None:
        """Claim no more jobs, and call ``drained`` when the last running job has ended; all else
        continues."""
        self._worker.drain(drained)

    def release_waiters(self) -> None:
        """End followers and long polls, because the service is about to stop."""
        self._notifier.close()
        self._dispatcher.release()

    def stop(self, deadline_s: float = 3.0) -> None:
        """Stop all parts within about ``deadline_s``; running containers continue."""
        deadline = monotonic() + deadline_s
        self.release_waiters()
        for stop in (
            self._scheduler.stop,
            self._deliverer.stop,
            self._dispatcher.stop,
            self._worker.stop,
            lambda _: self._leased.close(),
            self._janitor.stop,
            self._context.sealing.stop,
            self._sender.stop,
            self._queue.stop,
            lambda _: self._runner.close(),
            self._sharing.stop,
            lambda _: self._database.close(),
        ):
            try:
                stop(max(0.1, deadline - monotonic()))
            except ReactorcideError as exc:
                log.warning("while stopping: %s", exc)

    def _worker_views(self) -> list[WorkerView]:
        """Return this process's own worker, those of other services, and those on other machines."""
        return [
            self._worker.view(),
            *self._sharing.views(),
            *registry.views(self._context, away_after_s=_AWAY_AFTER_S),
        ]

    def _count_bad_token(self, network: str, per_minute: int) -> float:
        return self._store.bad_tokens.count(network, per_minute, now_ms=now_ms())

    def _warm_counts(self) -> tuple[int, int, int]:
        view = self._runner.warm_view()
        return view.waiting, view.jobs_warm, view.jobs_cold

    def _web_context(self) -> JobContext:
        """Return the collaborators of requests, which wait for a bucket only so long."""
        settings = self._settings
        if settings.objects is None:
            return self._context
        from reactorcide.web.objects import RequestedObjects
        from reactorcide.web.streams import StreamSlots

        quick = parts.object_store(settings, settings.objects, self._environment, is_quick=True)
        objects = RequestedObjects(self._objects, quick, StreamSlots(MAX_READS_AT_ONCE))
        logs = parts.log_store(settings, self._store.log_pieces, objects)
        return replace(self._context, objects=objects, logs=logs)

    def _web(self, metrics: Metrics) -> "Flask":
        """Return the WSGI application."""
        # Imported late: Flask and pydantic take most of the import time, and the operator's commands need
        # neither.
        from reactorcide.web import create_app
        from reactorcide.web.probes import Probes
        from reactorcide.web.ratelimit import FailureLimiter
        from reactorcide.web.services import RETENTION, RemoteWorkers, Services
        from reactorcide.web.streams import StreamSlots

        settings = self._settings
        services = Services(
            jobs=self._web_context(),
            runs=self._runs,
            accounts=self._accounts,
            defaults=self._runs.defaults,
            max_source_bytes=settings.max_source_bytes,
            slots=StreamSlots(settings.stream_slots),
            delivery_slots=StreamSlots(MAX_LARGE_AT_ONCE),
            metrics=metrics,
            bad_tokens=FailureLimiter(
                settings.bad_tokens, shared=self._count_bad_token if self._sharing.worker else None
            ),
            probes=Probes(
                {
                    "database": self._database.check,
                    "corndogs": self._queue.corndogs.check_health,
                    # A lambda: reading the method from the deferred runner would create the runner.
                    "docker": lambda: self._runner.check(),
                    "object_store": self._check_objects,
                    "worker": self._worker.check,
                }
            ),
            workers=self._worker_views,
            remote=RemoteWorkers(
                dispatcher=self._dispatcher,
                attempts=self._leased,
                lease_s=settings.lease_s,
                limits=parts.limits_of_remote_workers(settings),
            ),
            is_admin=parts.admins(self._store.accounts),
            http=self._http,
            public_url=settings.public_url,
            retention={name: getattr(settings, name) for name in RETENTION},
        )
        return create_app(
            services,
            trusted_proxies=settings.trusted_proxies,
            cors_origins=settings.cors_origins,
            allowed_hosts=settings.allowed_hosts,
            public_url=settings.public_url,
            has_ui=not settings.no_ui,
        )

    def _check_room(self) -> None:
        """Raise ``ObjectStoreError`` if the output of another job could not be stored."""
        settings = self._settings
        if settings.objects is None:
            check_room(settings.objects_dir, settings.min_free_disk_bytes)
        else:
            self._check_objects()

    def _check_objects(self) -> None:
        """Raise ``ObjectStoreError`` unless logs and objects can be written."""
        settings = self._settings
        self._objects.check()
        if settings.objects is not None:
            check_room(settings.logs_dir, settings.min_free_disk_bytes)

    def _remove_leftovers(self) -> None:
        """Remove incomplete files of a killed service; call it before anything is written."""
        try:
            if self._settings.objects is None:
                # The janitor removes old incomplete uploads from a bucket.
                self._objects.remove_leftovers()
            self._logs.remove_leftovers()
            if not self._sharing.worker:
                # Otherwise other services may be storing something just now; the janitor removes old ones.
                remove_orphans(self._context)
            if self._settings.workspaces_dir.exists():
                shutil.rmtree(self._settings.workspaces_dir)
        except (ReactorcideError, OSError) as exc:
            log.warning("incomplete files of an earlier service were not removed: %s", exc)
