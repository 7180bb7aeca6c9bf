"""Messages of webhooks about runs and jobs, by Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import hmac
import json
from collections.abc import Iterator
from http import HTTPStatus
from time import time
from urllib.parse import urlsplit

from reactorcide.domain.errors import NotFound, RequestFailed
from reactorcide.domain.http import HttpRequest
from reactorcide.domain.jobs import JobEvent
from reactorcide.domain.projects import Project, ProjectRole
from reactorcide.domain.runs import Run, RunEvent, RunStatus
from reactorcide.domain.webhooks import Webhook, WebhookEvent, WebhookMessage
from reactorcide.lib.clock import now_ms, rfc3339
from reactorcide.lib.ids import new_id
from reactorcide.lib.records import record
from reactorcide.network import Http
from reactorcide.outbox import answers
from reactorcide.outbox.sender import Arrived, Failure
from reactorcide.store import Records, Store

SECRET_PREFIX = "whsec_"  # noqa: S105  # no password
_MAX_REASON_CHARS = 2000
_AT_ONCE = 100


def signature(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the signature of a message: HMAC-SHA256 over its id, its time and its body."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.digest(key, f"{message_id}.{timestamp_s}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


class Announcer:
    """Writes the messages about the latest status changes for each webhook. For one thread."""

    def __init__(self, store: Store, public_url: str | None) -> None:
        self._store = store
        self._public_url = public_url

    def announce(self, now_ms: int) -> bool:
        """Write the messages of some changes, each once, and return whether there are more changes.

        The messages and the position are one transaction.
        """
        webhooks = self._store.webhooks.of_user(None)
        if not webhooks:
            return False
        after = self._store.webhooks.cursor()
        events = self._store.events.after(after, None, limit=_AT_ONCE)
        if not events:
            return False

        def write(tx: Records) -> None:
            happened = _Happened(tx, webhooks, self._public_url, now_ms)
            for event in events:
                happened.tell(event)
            happened.write()
            tx.webhooks.set_cursor(events[-1].event_id)

        self._store.write(write)
        return len(events) == _AT_ONCE


class _Happened:
    """The messages of one transaction."""

    def __init__(self, tx: Records, webhooks: list[Webhook], public_url: str | None, now_ms: int) -> None:
        self._tx = tx
        self._webhooks = webhooks
        self._public_url = public_url
        self._now_ms = now_ms
        self._may_see: dict[tuple[str, str], bool] = {}
        self._messages: list[tuple[Webhook, str, str]] = []
        """Webhook, type and body of each message."""

    def tell(self, event: JobEvent | RunEvent) -> None:
        """Add the messages of a status change."""
        run = None if event.run_id is None else self._tx.runs.find(event.run_id)
        project = None if run is None or run.project_id is None else self._tx.projects.find(run.project_id)
        if run is None or project is None:
            return
        for kind, name in self._types(event, run):
            body = self._body(name, event, run, project)
            for webhook in self._webhooks:
                if kind in webhook.events and self._is_for(webhook, project, event.at_ms):
                    self._messages.append((webhook, name, body))

    def write(self) -> None:
        """Write all messages in order; their ids have the same order."""
        ids = sorted(new_id() for _ in self._messages)
        for message_id, (webhook, name, body) in zip(ids, self._messages, strict=True):
            self._tx.webhooks.owe(
                WebhookMessage(
                    message_id=message_id,
                    webhook_id=webhook.webhook_id,
                    type=name,
                    body=body,
                    created_at_ms=self._now_ms,
                    version=1,
                    owed_since_ms=self._now_ms,
                    next_at_ms=self._now_ms,
                    failures=0,
                    problem=None,
                    sent_at_ms=None,
                )
            )
        for webhook_id in {webhook.webhook_id for webhook, _, _ in self._messages}:
            self._tx.webhooks.trim(webhook_id)

    def _types(self, event: JobEvent | RunEvent, run: Run) -> Iterator[tuple[WebhookEvent, str]]:
        if isinstance(event, JobEvent):
            yield WebhookEvent.JOB, f"job.{event.status_to}"
        elif event.node is None:
            yield WebhookEvent.RUN, f"run.{event.status_to}"
            # A cancelled or skipped run does not show whether the workflow works.
            if event.status_to == RunStatus.FAILED:
                self._tx.webhooks.set_failing(run)
                yield WebhookEvent.FAILURE, "failure"
            elif event.status_to == RunStatus.COMPLETED and self._tx.webhooks.set_works(run):
                yield WebhookEvent.RECOVERY, "recovery"

    def _is_for(self, webhook: Webhook, project: Project, at_ms: int) -> bool:
        if at_ms < webhook.created_at_ms or webhook.disabled_at_ms is not None:
            return False
        if webhook.project_ids is not None and project.project_id not in webhook.project_ids:
            return False
        key = (webhook.user_id, project.project_id)
        if key not in self._may_see:
            self._may_see[key] = self._is_owner(*key)
        return self._may_see[key]

    def _is_owner(self, user_id: str, project_id: str) -> bool:
        try:
            user = self._tx.accounts.user(user_id)
        except NotFound:
            return False
        role = self._tx.projects.role(project_id, user_id)
        return user.is_active and (user.is_admin or role is ProjectRole.OWNER)

    def _body(self, name: str, event: JobEvent | RunEvent, run: Run, project: Project) -> str:
        data: dict[str, object] = {
            "project": {"project_id": project.project_id, "name": project.name},
            "run": {
                "run_id": run.run_id,
                "number": run.number,
                "attempt": run.attempt,
                "workflow": run.workflow_id,
                "event": run.event.get("name"),
                "branch": run.event.get("branch"),
                "tag": run.event.get("tag"),
                "sha": run.sha,
                "status": run.status,
                "reason": None if run.reason is None else run.reason[:_MAX_REASON_CHARS],
                "url": None if self._public_url is None else f"{self._public_url}/runs/{run.run_id}",
            },
        }
        if isinstance(event, JobEvent):
            reason = None if event.reason is None else event.reason[:_MAX_REASON_CHARS]
            data["job"] = {
                "job_id": event.job_id,
                "node": event.node,
                "attempt": event.attempt,
                "status": event.status_to,
                "reason": reason,
            }
        else:
            data["run"] |= {"status": event.status_to, "attempt": event.attempt}  # type: ignore[operator]  # a dict
        return json.dumps({"type": name, "timestamp": rfc3339(event.at_ms), "data": data})


class WebhookMessages:
    """See ``Line``; a lane is a webhook."""

    def __init__(self, store: Store, http: Http) -> None:
        self._store = store
        self._http = http

    def next(self, owner_id: str, *, now_ms: int) -> "OwedMessage | None":
        """See ``Line.next``."""
        message = self._store.webhooks.next_message(owner_id, now_ms=now_ms)
        webhook = self._store.webhooks.find(owner_id)
        if message is None or webhook is None:
            return None
        return OwedMessage(self._store, self._http, webhook, message)

    def give_up(self, owner_id: str, problem: str, *, owed_up_to_ms: int) -> None:
        """See ``Line.give_up``."""
        self._store.webhooks.give_up(owner_id, problem, owed_up_to_ms=owed_up_to_ms)


@record
class OwedMessage:
    """See ``Owed``."""

    store: Store
    http: Http
    webhook: Webhook
    message: WebhookMessage

    @property
    def failures(self) -> int:
        """See ``Owed.failures``."""
        return self.message.failures

    def send(self) -> Arrived | Failure:
        """See ``Owed.send``."""
        secrets = self.store.webhooks.secrets(self.webhook.webhook_id, now_ms=now_ms())
        body, now_s = self.message.body.encode(), int(time())
        message_id = f"msg_{self.message.message_id}"
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": " ".join(signature(secret, message_id, now_s, body) for secret in secrets),
        }
        try:
            answer = self.http.send(
                HttpRequest(method="POST", url=self.webhook.url, headers=headers, body=body)
            )
        except RequestFailed as exc:
            return Failure(problem=str(exc), reason="unreachable", is_of_lane=True)
        wait_s = answers.wait_s(answer, now_s=time())
        if answer.is_success:
            return Arrived(wait_s=wait_s)
        problem = f"{urlsplit(self.webhook.url).netloc} {answers.phrase(answer, *secrets)}"
        if answer.status == HTTPStatus.GONE and self.store.webhooks.disable(self.webhook, now_ms=now_ms()):
            problem = f"{problem}: the webhook is disabled until it is changed"
            return Failure(problem=problem, reason=answers.reason(answer), is_of_lane=True, is_gone=True)
        return Failure(
            problem=problem,
            reason=answers.reason(answer),
            is_of_lane=wait_s is not None or answers.asks_to_wait(answer),
            wait_s=wait_s,
        )

    def arrived(self, *, now_ms: int) -> None:
        """See ``Owed.arrived``."""
        self.store.webhooks.message_sent(self.message, now_ms=now_ms)

    def failed(self, problem: str, *, next_at_ms: int) -> None:
        """See ``Owed.failed``."""
        self.store.webhooks.message_failed(self.message, problem, next_at_ms=next_at_ms)
