"""Sending commit statuses to the forges of projects."""

import json
import threading
from dataclasses import asdict
from http import HTTPStatus
from time import monotonic, time
from urllib.parse import urlsplit

from reactorcide.domain.errors import InvalidInput, RequestFailed
from reactorcide.domain.forges import CommitStatus, ForgeKind
from reactorcide.domain.projects import CredentialKind, Project
from reactorcide.domain.statuses import StatusRecord
from reactorcide.forges import FORGES
from reactorcide.forges.repositories import repository_at
from reactorcide.lib.clock import now_ms
from reactorcide.lib.records import record
from reactorcide.network import Http
from reactorcide.outbox import answers
from reactorcide.outbox.sender import ANY_TIME_MS, Arrived, Failure
from reactorcide.store import Records, Store
from reactorcide.store.outbox import STATUSES, Lane

_OF_TOKEN = {
    401: "the project's token is wrong or has expired; set another one",
    403: "the project's token may not set commit statuses; set one that may write to the repository",
    404: "the token may not see the repository, or there is none of that name, or no such commit",
}


@record
class Destination:
    """A repository at a forge, and the token for it."""

    forge: ForgeKind
    forge_url: str | None
    git_url: str
    token: str

    @classmethod
    def of(cls, project: Project, token: str) -> "Destination":
        """Return the destination of a project's statuses."""
        return cls(project.forge, project.forge_url, project.git_url, token)

    def dump(self) -> str:
        """Return it as text, which is secret."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> "Destination":
        """Return what ``dump`` made a text of."""
        values = json.loads(text)
        return cls(**values | {"forge": ForgeKind(values["forge"])})


def close(tx: Records, project: Project, *, now_ms: int) -> None:
    """Have the statuses that are owed sent as errors after the project was removed, in this transaction."""
    token = tx.projects.credential(project.project_id, CredentialKind.TOKEN)
    if token is not None:
        destination = Destination.of(project, token).dump()
        tx.outbox.close_project(project.project_id, destination, "the project was deleted", now_ms=now_ms)


class Pauses:
    """The pauses that forges ask for: of all requests with a token, whatever the project. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[tuple[str, str], float] = {}
        """By the host and the token; in seconds of ``monotonic``."""

    def add(self, host: str, token: str, wait_s: float) -> None:
        """Record that a forge asks for a pause."""
        now = monotonic()
        with self._lock:
            # Expired ones are removed, so that this stays small.
            self._until = {key: until for key, until in self._until.items() if until > now}
            self._until[host, token] = now + wait_s

    def remaining_s(self, host: str, token: str) -> float:
        """Return how long the pause of a token lasts; not positive if there is none."""
        with self._lock:
            return self._until.get((host, token), 0.0) - monotonic()


class CommitStatuses:
    """See ``Line``; a lane is a project."""

    def __init__(self, store: Store, http: Http, public_url: str | None) -> None:
        self._store = store
        self._http = http
        self._public_url = public_url
        self._pauses = Pauses()

    def next(self, owner_id: str, *, now_ms: int) -> "OwedStatus | None":
        """See ``Line.next``."""
        record = self._store.outbox.next_status(owner_id, now_ms=now_ms)
        if record is None:
            return None
        destination = self._destination(owner_id)
        if destination is None:
            problem = "the project has no token for its forge any more"
            self.give_up(owner_id, problem, owed_up_to_ms=ANY_TIME_MS)
            return None
        return OwedStatus(self._store, self._http, self._pauses, record, destination, self._page(record))

    def give_up(self, owner_id: str, problem: str, *, owed_up_to_ms: int) -> None:
        """See ``Line.give_up``."""
        self._store.outbox.give_up_statuses(owner_id, problem, owed_up_to_ms=owed_up_to_ms)

    def _page(self, record: StatusRecord) -> str | None:
        return None if self._public_url is None else f"{self._public_url}/runs/{record.run_id}"

    def _destination(self, project_id: str) -> Destination | None:
        project = self._store.projects.find(project_id)
        if project is None:
            text = self._store.outbox.destination(Lane(STATUSES, project_id))
            return None if text is None else Destination.load(text)
        token = self._store.projects.credential(project_id, CredentialKind.TOKEN)
        return None if token is None or project.forge not in FORGES else Destination.of(project, token)


@record
class OwedStatus:
    """See ``Owed``."""

    store: Store
    http: Http
    pauses: Pauses
    record: StatusRecord
    destination: Destination
    page: str | None

    @property
    def failures(self) -> int:
        """See ``Owed.failures``."""
        return self.record.failures

    def send(self) -> Arrived | Failure:
        """See ``Owed.send``."""
        forge, token = FORGES[self.destination.forge], self.destination.token
        record = self.record
        status = CommitStatus(
            sha=record.sha,
            context=record.context,
            state=record.state,
            description=record.description,
            target_url=self.page,
        )
        try:
            repository = repository_at(self.destination.git_url, self.destination.forge_url)
            request = forge.status_request(repository, token, status)
            host = urlsplit(request.url).netloc
            if (pause_s := self.pauses.remaining_s(host, token)) > 0:
                problem = f"{host} asks for a pause of all requests with the project's token"
                return Failure(problem=problem, reason="paused", is_of_lane=True, wait_s=pause_s)
            answer = self.http.send(request)
        except InvalidInput as exc:
            return Failure(problem=str(exc), reason="address", is_of_lane=True)
        except RequestFailed as exc:
            if exc.may_arrive:
                self.store.outbox.status_unanswered(self.record, now_ms=now_ms())
            return Failure(problem=str(exc), reason="unreachable", is_of_lane=True)
        if answer.status == HTTPStatus.GATEWAY_TIMEOUT:
            self.store.outbox.status_unanswered(self.record, now_ms=now_ms())
        wait_s = answers.wait_s(answer, now_s=time())
        if wait_s is not None:
            self.pauses.add(host, token, wait_s)
        if forge.has_accepted(answer):
            return Arrived(wait_s=wait_s)
        where = f"{host} {answers.phrase(answer, token)}"
        problem = f"{where} to the status {record.context} of {record.sha[:10]}"
        if wait_s is None and answer.status in _OF_TOKEN:
            problem = f"{problem}: {_OF_TOKEN[answer.status]}"
        return Failure(
            problem=problem,
            reason=answers.reason(answer),
            # A single commit may not be there any more.
            is_of_lane=wait_s is not None or answer.status in (401, 403) or answers.asks_to_wait(answer),
            wait_s=wait_s,
        )

    def arrived(self, *, now_ms: int) -> None:
        """See ``Owed.arrived``."""
        self.store.outbox.status_sent(self.record, now_ms=now_ms)

    def failed(self, problem: str, *, next_at_ms: int) -> None:
        """See ``Owed.failed``."""
        self.store.outbox.status_failed(self.record, problem, next_at_ms=next_at_ms)
