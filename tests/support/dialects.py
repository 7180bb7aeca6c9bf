"""What forges send, written after their public documentation: payloads, header fields, signatures.

GitHub: docs.github.com/en/webhooks/webhook-events-and-payloads. Gitea, Forgejo and Gogs:
docs.gitea.com/usage/webhooks, and the structures of their APIs. GitLab:
docs.gitlab.com/user/project/integrations/webhook_events.
"""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from reactorcide.domain.forges import ForgeKind

Json = dict[str, Any]
Delivery = tuple[str, Json]
"""The name of the event, and the payload."""

NO_COMMIT = "0" * 40


@dataclass(frozen=True)
class Repo:
    """A repository at a forge."""

    id: int
    path: str
    forge_url: str
    default_branch: str = "main"

    @property
    def clone_url(self) -> str:
        return f"{self.forge_url}/{self.path}.git"

    @property
    def web_url(self) -> str:
        return f"{self.forge_url}/{self.path}"


@dataclass(frozen=True, kw_only=True)
class Pull:
    """A pull request."""

    number: int
    head_sha: str
    head_branch: str
    base_sha: str
    base_branch: str
    head_repo: Repo | None
    """``None``: it was deleted."""
    title: str = "Mend the roof"
    author: str = "mona"
    merge_sha: str | None = None


class Dialect:
    """How one forge writes; the actions are opened, reopened, updated, rebased, labelled, closed, merged."""

    name: str
    kind: ForgeKind
    event_field: str
    id_field: str
    tells_head_sha = True
    has_statuses = True
    pull_ref = "refs/pull/{}/head"

    def push(
        self, repo: Repo, ref: str, before: str, after: str, *, message: str = "Say hello", user: str = "mona"
    ) -> Delivery:
        raise NotImplementedError

    def pull_request(self, repo: Repo, action: str, pull: Pull, *, user: str = "mona") -> Delivery:
        raise NotImplementedError

    def tag(self, repo: Repo, name: str, sha: str, *, message: str = "Say hello") -> list[Delivery]:
        """Return all that the forge sends for a new tag."""
        return [self.push(repo, f"refs/tags/{name}", NO_COMMIT, sha, message=message)]

    def sign(self, body: bytes, secret: str) -> dict[str, str]:
        raise NotImplementedError

    def request(
        self, delivery: Delivery, secret: str, *, delivery_id: str | None = None, form: bool = False
    ) -> tuple[dict[str, str], bytes]:
        """Return the fields and the body of the request that delivers it."""
        event, payload = delivery
        text = json.dumps(payload)
        body = (urlencode({"payload": text}) if form else text).encode()
        fields = {
            "Content-Type": "application/x-www-form-urlencoded" if form else "application/json",
            self.event_field: event,
            self.id_field: delivery_id or str(uuid4()),
        }
        return fields | self.sign(body, secret), body


def digest(body: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _user(name: str) -> Json:
    return {"id": 7, "login": name, "username": name, "avatar_url": "https://forge.example/7", "type": "User"}


def _repository(repo: Repo) -> Json:
    return {
        "id": repo.id,
        "name": repo.path.rpartition("/")[2],
        "full_name": repo.path,
        "private": False,
        "html_url": repo.web_url,
        "clone_url": repo.clone_url,
        "ssh_url": f"git@forge.example:{repo.path}.git",
        "default_branch": repo.default_branch,
    }


def _commit(sha: str, message: str, user: str) -> Json:
    who = {"name": user, "email": f"{user}@example.com", "username": user}
    return {
        "id": sha,
        "message": message,
        "timestamp": "2026-11-27T03:00:00Z",
        "url": f"https://forge.example/commit/{sha}",
        "author": who,
        "committer": who,
        "added": ["a.txt"],
        "removed": [],
        "modified": [],
    }


class GitHubDialect(Dialect):
    """GitHub. A tag is a push; so is a deletion."""

    name = "github"
    kind = ForgeKind.GITHUB
    event_field = "X-GitHub-Event"
    id_field = "X-GitHub-Delivery"
    head_changed = "synchronize"

    def push(
        self, repo: Repo, ref: str, before: str, after: str, *, message: str = "Say hello", user: str = "mona"
    ) -> Delivery:
        is_deleted = after == NO_COMMIT
        commit = None if is_deleted else _commit(after, message, user)
        return "push", {
            "ref": ref,
            "before": before,
            "after": after,
            "created": before == NO_COMMIT,
            "deleted": is_deleted,
            "forced": False,
            "base_ref": None,
            "compare": f"{repo.web_url}/compare/{before[:12]}...{after[:12]}",
            "commits": [] if commit is None else [commit],
            "head_commit": commit,
            "repository": _repository(repo),
            "pusher": {"name": user, "email": f"{user}@example.com"},
            "sender": _user(user),
        }

    def pull_request(self, repo: Repo, action: str, pull: Pull, *, user: str = "mona") -> Delivery:
        actions = {
            "updated": self.head_changed,
            "rebased": "edited",
            "labelled": "labeled",
            "merged": "closed",
        }
        payload = {
            "action": actions.get(action, action),
            "number": pull.number,
            "pull_request": self._pull(repo, action, pull),
            "repository": _repository(repo),
            "sender": _user(user),
        }
        if action == "rebased":
            payload["changes"] = self._new_base()
        if action == "labelled":
            payload["label"] = {"id": 1, "name": "bug"}
        return "pull_request", payload

    def _new_base(self) -> Json:
        return {"base": {"ref": {"from": "old"}, "sha": {"from": "1" * 40}}}

    def _pull(self, repo: Repo, action: str, pull: Pull) -> Json:
        is_merged = action == "merged"
        return {
            "id": 1000 + pull.number,
            "number": pull.number,
            "state": "closed" if action in ("closed", "merged") else "open",
            "title": pull.title,
            "html_url": f"{repo.web_url}/pull/{pull.number}",
            "user": _user(pull.author),
            "body": None,
            "draft": False,
            "merged": is_merged,
            "merge_commit_sha": pull.merge_sha,
            "head": {
                "label": f"mona:{pull.head_branch}",
                "ref": pull.head_branch,
                "sha": pull.head_sha,
                "repo": None if pull.head_repo is None else _repository(pull.head_repo),
            },
            "base": {
                "label": f"acme:{pull.base_branch}",
                "ref": pull.base_branch,
                "sha": pull.base_sha,
                "repo": _repository(repo),
            },
        }

    def sign(self, body: bytes, secret: str) -> dict[str, str]:
        return {"X-Hub-Signature-256": f"sha256={digest(body, secret)}"}

    def ping(self, repo: Repo, events: list[str]) -> Delivery:
        return "ping", {
            "zen": "Design for failure.",
            "hook_id": 1,
            "hook": {"type": "Repository", "id": 1, "events": events, "config": {"content_type": "json"}},
            "repository": _repository(repo),
            "sender": _user("mona"),
        }


class GiteaDialect(GitHubDialect):
    """Gitea and Forgejo. A tag comes in two deliveries: create, and push."""

    name = "gitea"
    kind = ForgeKind.GITEA
    event_field = "X-Gitea-Event"
    id_field = "X-Gitea-Delivery"
    head_changed = "synchronized"

    def tag(self, repo: Repo, name: str, sha: str, *, message: str = "Say hello") -> list[Delivery]:
        return [self.create(repo, name, sha), *super().tag(repo, name, sha, message=message)]

    def create(self, repo: Repo, name: str, sha: str, ref_type: str = "tag") -> Delivery:
        return "create", {
            "sha": sha,
            "ref": name,
            "ref_type": ref_type,
            "repository": _repository(repo),
            "sender": _user("mona"),
        }

    def _new_base(self) -> Json:
        return {"ref": {"from": "old"}}

    def _pull(self, repo: Repo, action: str, pull: Pull) -> Json:
        payload = super()._pull(repo, action, pull)
        payload["merge_base"] = pull.base_sha
        payload["head"]["repo_id"] = 0 if pull.head_repo is None else pull.head_repo.id
        payload["base"]["repo_id"] = repo.id
        return payload

    def sign(self, body: bytes, secret: str) -> dict[str, str]:
        hexadecimal = digest(body, secret)
        return {"X-Gitea-Signature": hexadecimal, "X-Hub-Signature-256": f"sha256={hexadecimal}"}

    def request(
        self, delivery: Delivery, secret: str, *, delivery_id: str | None = None, form: bool = False
    ) -> tuple[dict[str, str], bytes]:
        fields, body = super().request(delivery, secret, delivery_id=delivery_id, form=form)
        # It sends those of its ancestors, too.
        fields |= {"X-GitHub-Event": delivery[0], "X-GitHub-Delivery": fields[self.id_field]}
        return fields, body


class ForgejoDialect(GiteaDialect):
    """Forgejo, by its own fields alone, so that they are tried."""

    name = "forgejo"
    event_field = "X-Forgejo-Event"
    id_field = "X-Forgejo-Delivery"

    def sign(self, body: bytes, secret: str) -> dict[str, str]:
        return {"X-Forgejo-Signature": digest(body, secret)}


class GogsDialect(GiteaDialect):
    """Gogs: pull requests name branches and repositories, not commits. It has no commit statuses."""

    name = "gogs"
    event_field = "X-Gogs-Event"
    id_field = "X-Gogs-Delivery"
    tells_head_sha = False
    has_statuses = False

    def push(
        self, repo: Repo, ref: str, before: str, after: str, *, message: str = "Say hello", user: str = "mona"
    ) -> Delivery:
        event, payload = super().push(repo, ref, before, after, message=message, user=user)
        # It has no such field, and calls another one by another name.
        del payload["head_commit"]
        payload["compare_url"] = payload.pop("compare")
        return event, payload

    def _pull(self, repo: Repo, action: str, pull: Pull) -> Json:
        payload = super()._pull(repo, action, pull)
        del payload["head"], payload["base"]
        return payload | {
            "head_branch": pull.head_branch,
            "head_repo": None if pull.head_repo is None else _repository(pull.head_repo),
            "base_branch": pull.base_branch,
            "base_repo": _repository(repo),
        }

    def sign(self, body: bytes, secret: str) -> dict[str, str]:
        return {"X-Gogs-Signature": digest(body, secret)}


class GitLabDialect(Dialect):
    """GitLab, with the secret in a field."""

    name = "gitlab"
    kind = ForgeKind.GITLAB
    event_field = "X-Gitlab-Event"
    id_field = "Idempotency-Key"
    pull_ref = "refs/merge-requests/{}/head"

    def push(
        self, repo: Repo, ref: str, before: str, after: str, *, message: str = "Say hello", user: str = "mona"
    ) -> Delivery:
        is_tag = ref.startswith("refs/tags/")
        is_deleted = after == NO_COMMIT
        return "Tag Push Hook" if is_tag else "Push Hook", {
            "object_kind": "tag_push" if is_tag else "push",
            "event_name": "tag_push" if is_tag else "push",
            "before": before,
            "after": after,
            "ref": ref,
            "checkout_sha": None if is_deleted else after,
            "message": None,
            "user_id": 7,
            "user_name": user.title(),
            "user_username": user,
            "project_id": repo.id,
            "project": self._project(repo),
            "commits": [] if is_deleted else [_commit(after, message, user)],
            "total_commits_count": 0 if is_deleted else 1,
        }

    def pull_request(self, repo: Repo, action: str, pull: Pull, *, user: str = "mona") -> Delivery:
        actions = {"opened": "open", "reopened": "reopen", "closed": "close", "merged": "merge"}
        about = {
            "id": 1000 + pull.number,
            "iid": pull.number,
            "title": pull.title,
            "state": "merged" if action == "merged" else "opened",
            "action": actions.get(action, "update"),
            "source_branch": pull.head_branch,
            "target_branch": pull.base_branch,
            "source_project_id": None if pull.head_repo is None else pull.head_repo.id,
            "target_project_id": repo.id,
            "source": None if pull.head_repo is None else self._project(pull.head_repo),
            "target": self._project(repo),
            "last_commit": _commit(pull.head_sha, "Say hello", user),
            "merge_commit_sha": pull.merge_sha,
            "url": f"{repo.web_url}/-/merge_requests/{pull.number}",
            "author_id": 7,
        }
        payload: Json = {
            "object_kind": "merge_request",
            "event_type": "merge_request",
            "user": {"id": 7, "name": user.title(), "username": user},
            "project": self._project(repo),
            "object_attributes": about,
            "labels": [],
            "changes": {},
        }
        if action == "updated":
            about["oldrev"] = "1" * 40
        if action == "rebased":
            payload["changes"] = {"target_branch": {"previous": "old", "current": pull.base_branch}}
        if action == "labelled":
            payload["changes"] = {"labels": {"previous": [], "current": [{"id": 1, "title": "bug"}]}}
        return "Merge Request Hook", payload

    def _project(self, repo: Repo) -> Json:
        return {
            "id": repo.id,
            "name": repo.path.rpartition("/")[2],
            "path_with_namespace": repo.path,
            "web_url": repo.web_url,
            "git_http_url": repo.clone_url,
            "git_ssh_url": f"git@forge.example:{repo.path}.git",
            "default_branch": repo.default_branch,
            "visibility_level": 0,
        }

    def sign(self, body: bytes, secret: str) -> dict[str, str]:
        return {"X-Gitlab-Token": secret}

    def request(
        self, delivery: Delivery, secret: str, *, delivery_id: str | None = None, form: bool = False
    ) -> tuple[dict[str, str], bytes]:
        # It knows no forms.
        fields, body = super().request(delivery, secret, delivery_id=delivery_id)
        return fields | {
            "X-Gitlab-Event-UUID": str(uuid4()),
            "X-Gitlab-Instance": "https://gitlab.example",
        }, body


class SignedGitLabDialect(GitLabDialect):
    """GitLab with a signing token: Standard Webhooks, over the id, the time and the body."""

    name = "gitlab-signed"

    def request(
        self, delivery: Delivery, secret: str, *, delivery_id: str | None = None, form: bool = False
    ) -> tuple[dict[str, str], bytes]:
        fields, body = super().request(delivery, secret, delivery_id=delivery_id)
        del fields["X-Gitlab-Token"]
        return fields | standard_signature(body, secret, fields[self.id_field], int(time.time())), body


def standard_signature(body: bytes, secret: str, message_id: str, timestamp: int) -> dict[str, str]:
    is_key = secret.startswith("whsec_")
    key = base64.b64decode(secret.removeprefix("whsec_")) if is_key else secret.encode()
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        GitHubDialect(),
        GiteaDialect(),
        ForgejoDialect(),
        GogsDialect(),
        GitLabDialect(),
        SignedGitLabDialect(),
    )
}
