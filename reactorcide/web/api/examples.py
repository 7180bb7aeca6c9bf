"""An example of every JSON body in the document, by the name of its model.

Longer than 400 lines, because it is one table.
"""

from typing import Any

from reactorcide.domain.definition import JOB_FIELDS

_JOB_ID = "0198c0de-1d2c-7b3a-9f4e-5a6b7c8d9e0f"
_USER_ID = "0198c0de-0a1b-7c2d-8e3f-4a5b6c7d8e9f"
_TOKEN_ID = "0198c0de-2b3c-7d4e-9f5a-6b7c8d9e0f1a"  # noqa: S105  # an id, not a token
_WORKER_ID = "embedded-7c8d9e0f"
_CREATED, _STARTED, _ENDED = (f"2026-01-31T12:00:{moment}Z" for moment in ("00.000", "01.250", "04.500"))

_JOB: dict[str, Any] = {
    "job_id": _JOB_ID,
    "user_id": _USER_ID,
    "status": "completed",
    **{item.json_name: item.about.example for item in JOB_FIELDS},
    "created_at": _CREATED,
    "updated_at": _ENDED,
    "queued_at": _CREATED,
    "started_at": _STARTED,
    "completed_at": _ENDED,
    "exit_code": 0,
    "error": None,
    "attempt": 1,
    "worker_id": _WORKER_ID,
    "corndogs_task_id": "0198c0de-3c4d-7e5f-8a6b-7c8d9e0f1a2b",
    "logs_object_key": f"jobs/{_JOB_ID}/1/log",
    "artifacts_object_key": f"jobs/{_JOB_ID}/1/artifacts/",
    "rerun_of": None,
    "run_id": None,
    "node": None,
    "pinned": False,
    "log_truncated": False,
}
_RUN_ID = "0198c0de-4d5e-7f6a-8b7c-8d9e0f1a2b3c"
_REMOTE_WORKER_ID = "build-2-7c8d9e0f"
_ASSIGNMENT: dict[str, Any] = {
    "job_id": _JOB_ID,
    "attempt": 1,
    "user_id": _USER_ID,
    "by_admin": False,
    "run_id": None,
    "node": None,
    "retries_used": 0,
    "killed_preparations": 0,
    "preparation_failures": 0,
    "container_id": None,
    "container_started_at": None,
    "log_offset": 0,
    "handing_over_age_ms": None,
    "started_age_ms": None,
    "cancelled": False,
    "definition": {"name": "test the main branch", "job_command": "make test", "source_type": "copy"},
    "lease_token": "2" * 64,
    "lost_after": 300,
}
_RUN: dict[str, Any] = {
    "run_id": _RUN_ID,
    "user_id": _USER_ID,
    "project_id": None,
    "number": 12,
    "attempt": 1,
    "workflow": "ci",
    "workflow_name": "CI",
    "file": ".reactorcide/workflows/ci.yaml",
    "status": "running",
    "reason": None,
    "warnings": [],
    "pinned": False,
    "trusted": True,
    "waits_for_approval": False,
    "event": {
        "name": "push",
        "branch": "main",
        "tag": None,
        "ref": None,
        "actor": "ann",
        "number": None,
        "base_branch": None,
        "message": "Add a test",
        "project": None,
    },
    "git_url": "https://git.example/team/project.git",
    "git_ref": "main",
    "source_id": None,
    "sha": "0123456789abcdef0123456789abcdef01234567",
    "created_at": _CREATED,
    "updated_at": _STARTED,
    "completed_at": None,
}
_NODE: dict[str, Any] = {
    "name": "publish",
    "job": "publish",
    "matrix": {},
    "needs": ["test"],
    "condition": "all_success",
    "allow_failure": False,
    "status": "waiting",
    "reason": "it waits for test",
    "job_id": None,
    "jobs": 0,
    "tests": None,
}
_TEST_NODE = _NODE | {
    "name": "test",
    "job": "test",
    "needs": [],
    "status": "running",
    "reason": None,
    "job_id": _JOB_ID,
    "jobs": 1,
    "tests": {"passed": 412, "failed": 2, "skipped": 3},
}
_TOKEN = {
    "token_id": _TOKEN_ID,
    "name": "nightly build",
    "created_at": _CREATED,
    "expires_at": "2027-01-31T12:00:00.000Z",
    "scopes": ["jobs:write"],
}
_USER = {
    "user_id": _USER_ID,
    "username": "ann",
    "email": "ann@example.com",
    "role": "user",
    "is_active": True,
    "created_at": _CREATED,
}
_INVITATION = "rci_" + 32 * "7a"

_SECRET = {
    "name": "pypi:token",
    "project_id": "0198c0de-0000-7000-8000-000000000005",
    "events": ["push", "tag_created"],
    "branches": ["main"],
    "workflows": None,
    "projects": [],
    "created_at": _CREATED,
    "updated_at": _CREATED,
    "last_used_at": _ENDED,
    "uses": [
        {
            "project_id": "0198c0de-0000-7000-8000-000000000005",
            "workflow": "publish",
            "run_id": _RUN_ID,
            "at": _ENDED,
        }
    ],
}
_PROJECT = {
    "project_id": "0198c0de-0000-7000-8000-000000000005",
    "name": "acme/site",
    "git_url": "https://git.example/acme/site.git",
    "visibility": "private",
    "disabled": False,
    "created_at": _CREATED,
    "updated_at": _CREATED,
}
_HOOK_URL = f"https://ci.example/api/v1/hooks/{_PROJECT['project_id']}"
_PROJECT_VIEW = _PROJECT | {
    "role": "owner",
    "members": [{"user_id": _USER_ID, "username": "ann", "role": "owner"}],
    "settings": {
        "forge": "gitea",
        "forge_url": None,
        "default_branch": None,
        "default_image": "python:3.13-slim",
        "queue": None,
        "pull_requests": "trusted",
        "allowed_events": None,
        "max_running": 10,
        "builder": False,
        "webhook_url": _HOOK_URL,
        "status_problem": None,
        "credentials": [{"kind": "webhook_secret", "public": None, "created_at": _CREATED}],
    },
}
_DELIVERY: dict[str, Any] = {
    "delivery_id": "0198c0de-6f7a-7b8c-9d0e-1f2a3b4c5d6e",
    "forge_delivery_id": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    "event": "push",
    "size": 8210,
    "status": "started",
    "outcome": "run started",
    "run_ids": [_RUN_ID],
    "created_at": _CREATED,
}

_SCHEDULE: dict[str, Any] = {
    "schedule_id": "0198c0de-0000-7000-8000-000000000006",
    "project_id": "0198c0de-0000-7000-8000-000000000005",
    "name": "nightly",
    "cron": "30 2 * * *",
    "timezone": "Europe/Berlin",
    "branch": None,
    "workflow": "ci",
    "vars": {},
    "enabled": True,
    "when_running": "skip",
    "next_due_at": [f"2026-02-0{day}T01:30:00.000Z" for day in range(1, 6)],
    "waiting": None,
    "created_at": _CREATED,
    "updated_at": _CREATED,
}

_WEBHOOK = {
    "webhook_id": "0198c0de-0000-7000-8000-00000000000b",
    "user_id": _USER_ID,
    "url": "https://chat.example/hooks/ci",
    "events": ["failure", "recovery"],
    "project_ids": [_PROJECT["project_id"]],
    "problem": None,
    "disabled_at": None,
    "created_at": _CREATED,
}
_SIGNS = {"secret": "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU="}
_MESSAGE = {
    "message_id": "0198c0de-0000-7000-8000-00000000000c",
    "type": "failure",
    "body": '{"type": "failure", "timestamp": "2026-01-31T12:00:04.500Z", "data": {}}',
    "created_at": _ENDED,
    "owed_since": None,
    "failures": 0,
    "problem": None,
    "sent_at": _ENDED,
}

EXAMPLES: dict[str, Any] = {
    "WebhookRequest": {name: _WEBHOOK[name] for name in ("url", "events")} | {"projects": ["acme/site"]},
    "WebhookChange": {"events": ["run"]},
    "WebhookResponse": _WEBHOOK,
    "NewWebhookResponse": _WEBHOOK | _SIGNS,
    "RenewedSecretResponse": _SIGNS,
    "WebhookListResponse": {"webhooks": [_WEBHOOK]},
    "MessageResponse": _MESSAGE,
    "MessageListResponse": {"messages": [_MESSAGE], "next_cursor": None},
    "HookResponse": {"delivery_id": _DELIVERY["delivery_id"], "status": "waiting", "outcome": None},
    "DeliveryResponse": {
        **_DELIVERY,
        "headers": {"content-type": "application/json", "x-github-event": "push"},
        "body": '{"ref": "refs/heads/main"}',
        "body_is_cut": False,
    },
    "DeliveryListResponse": {
        "deliveries": [_DELIVERY],
        "total": 1,
        "limit": 20,
        "next_cursor": None,
    },
    "JobRequest": {
        "name": "test the main branch",
        "job_command": "python -m unittest",
        "source_type": "git",
        "git_url": "https://git.example/team/project.git",
        "git_ref": "main",
        "runner_image": "python:3.13-alpine",
        "job_env_vars": {"VERBOSE": "1"},
        "timeout_seconds": 600,
        "cpu_limit": 2.0,
        "memory_limit": "512m",
        "retries": 1,
    },
    "JobResponse": _JOB,
    "RunRequest": {
        "git_url": "https://git.example/team/project.git",
        "git_ref": "main",
        "workflow": "ci",
        "event": {"name": "push", "branch": "main"},
    },
    "ProjectRequest": {
        "name": "acme/site",
        "git_url": "https://git.example/acme/site.git",
        "forge": "gitea",
        "max_running": 10,
    },
    "ProjectChange": {"visibility": "internal"},
    "ProjectResponse": _PROJECT_VIEW,
    "NewProjectResponse": _PROJECT_VIEW | {"webhook_secret": 32 * "5e"},
    "WebhookSecretResponse": {"webhook_url": _HOOK_URL, "webhook_secret": 32 * "5e"},
    "ProjectCheckResponse": {
        "repository": None,
        "token": "the forge does not know the token (401); create a new one",
    },
    "StatusListResponse": {
        "statuses": [
            {
                "status_id": "0198c0de-0000-7000-8000-000000000009",
                "run_id": _RUN["run_id"],
                "sha": _RUN["sha"],
                "context": "reactorcide/push/ci",
                "state": "failure",
                "description": "2 of 14 jobs failed: test (3.11), lint",
                "created_at": _CREATED,
                "owed_since": None,
                "failures": 0,
                "problem": None,
                "sent_state": "failure",
                "sent_description": "2 of 14 jobs failed: test (3.11), lint",
                "sent_at": _CREATED,
            }
        ],
        "next_cursor": None,
    },
    "ProjectListResponse": {"projects": [_PROJECT], "total": 1, "limit": 20, "next_cursor": None},
    "SecretRequest": {"value": "correct horse battery staple", "branches": ["main"]},
    "SharedSecretRequest": {"value": "correct horse battery staple", "projects": ["acme/site"]},
    "SecretResponse": _SECRET,
    "SecretListResponse": {"secrets": [_SECRET]},
    "ScheduleRequest": {
        "name": "nightly",
        "cron": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "workflow": "ci",
    },
    "ScheduleChange": {"enabled": False},
    "ScheduleResponse": _SCHEDULE
    | {
        "occurrences": [
            {
                "due_at": "2026-01-31T01:30:00.000Z",
                "at": "2026-01-31T01:30:00.412Z",
                "outcome": "started",
                "run_ids": [_RUN_ID],
            }
        ]
    },
    "ScheduleListResponse": {"schedules": [_SCHEDULE]},
    "DeployKeyResponse": {
        "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGq1Y5Yz3b3b0dC0rX4s2n4oQn4S0vE6Y0b9qXk7Zb1T "
        "reactorcide acme/site"
    },
    "MemberRequest": {"username": "bob", "role": "write"},
    "RerunRequest": {"only": "failed"},
    "RunResponse": _RUN | {"nodes": [_TEST_NODE, _NODE], "tests": _TEST_NODE["tests"]},
    "RunListResponse": {"runs": [_RUN], "total": 1, "limit": 20, "next_cursor": None},
    "JobListResponse": {"jobs": [_JOB], "total": 1, "limit": 20, "offset": 0, "next_cursor": None},
    "AttemptListResponse": {
        "attempts": [
            {
                "attempt": 1,
                "worker_id": _WORKER_ID,
                "container_id": "4f0c2b9d1e7a",
                "claimed_at": _CREATED,
                "started_at": _STARTED,
                "completed_at": _ENDED,
                "exit_code": 0,
                "error": None,
                "logs_object_key": f"jobs/{_JOB_ID}/1/log",
                "log_truncated": False,
            }
        ]
    },
    "WhyResponse": {
        "status": "queued",
        "reason": "all places of the worker are taken",
        "place": 3,
        "next_try_at": None,
    },
    "ArtifactListResponse": {
        "artifacts": [
            {
                "path": "report.xml",
                "size": 5,
                "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
                "executable": False,
            }
        ],
        "artifacts_truncated": False,
    },
    "TestsResponse": {
        "passed": 412,
        "failed": 1,
        "skipped": 3,
        "files": [
            {"path": "junit.xml", "passed": 412, "failed": 1, "skipped": 3, "problem": None},
        ],
        "failures": [
            {
                "file": "junit.xml",
                "suite": "tests.test_price",
                "name": "test_discount",
                "message": "assert 90 == 91",
                "text": "tests/test_price.py:12: AssertionError",
            }
        ],
        "truncated": False,
    },
    "CacheListResponse": {
        "caches": [
            {
                "cache_id": "0198c0de-5e6f-7a8b-9c0d-1e2f3a4b5c6d",
                "project_id": None,
                "user_id": _USER_ID,
                "repository": "https://git.example/team/project",
                "branch": "main",
                "key": "pip-" + 32 * "c0",
                "paths": ["/root/.cache/pip"],
                "size": 104_857_600,
                "job_id": _JOB_ID,
                "created_at": _ENDED,
                "last_used_at": _ENDED,
            }
        ],
        "next_cursor": None,
    },
    "SourceResponse": {"source_id": 32 * "c0", "size": 52_428, "files": 117},
    "QueueListResponse": {
        "queues": [{"queue_name": "default", "waiting": 3, "running": 2, "oldest_wait_seconds": 1.5}]
    },
    "WorkerListResponse": {
        "workers": [
            {
                "worker_id": _WORKER_ID,
                "host": "build-host",
                "concurrency": 2,
                "running_jobs": [_JOB_ID],
                "warm_containers": 0,
                "last_seen_at": _ENDED,
                "queues": [],
                "draining": False,
                "trouble": None,
                "version": None,
            }
        ]
    },
    "WorkerRequest": {"name": "build-2", "queues": ["linux"]},
    "NewWorkerResponse": {"worker_id": _REMOTE_WORKER_ID, "token": f"rcw_{'0' * 64}"},
    "WorkerRegistration": {"token": f"rcw_{'0' * 64}", "secret": f"rcs_{'1' * 64}"},
    "WorkerRegistrationResponse": {"worker_id": _REMOTE_WORKER_ID},
    "SessionRequest": {
        "session_id": _RUN_ID,
        "host": "build-host-2",
        "version": "0.1.0",
        "protocol": 1,
        "concurrency": 4,
        "queues": [],
        "lost_after": 300,
    },
    "SessionResponse": {
        "session_id": _RUN_ID,
        "worker_id": _REMOTE_WORKER_ID,
        "instance_id": _USER_ID,
        "protocol": 1,
        "lease": 60,
        "cancel_grace": 10,
        "max_artifact_bytes": 1 << 30,
        "max_artifacts": 10_000,
        "max_log_bytes": 256 << 20,
        "max_cache_bytes": 10 << 30,
    },
    "NextRequest": {
        "free": 1,
        "held": [{"job_id": _JOB_ID, "attempt": 1, "cancelled": False}],
        "wait": 25,
    },
    "NextResponse": {"assigned": [_ASSIGNMENT], "cancelled": [{"job_id": _JOB_ID, "attempt": 1}]},
    "AssignmentListResponse": {"attempts": [_ASSIGNMENT]},
    "RenewResponse": {"cancelled": False},
    "LogEndsResponse": {"log_bytes": 20, "index_bytes": 70},
    "HandOverRequest": {
        "container_id": "4f5a6b7c8d9e",
        "container_started_at": _STARTED,
        "log_offset": 0,
        "age_ms": 2,
    },
    "StartedRequest": {"age_ms": 2},
    "FinishRequest": {
        "exit_code": 0,
        "error": None,
        "has_artifacts": True,
        "outputs": {"values": {"version": "1.2.3"}, "variables": {}},
        "log_truncated": False,
        "log_bytes": 20,
        "index_bytes": 70,
    },
    "TryAgainRequest": {
        "reason": "exit code 1",
        "delay": 1,
        "exit_code": 1,
        "retries_used": 1,
        "log_truncated": False,
        "log_bytes": 20,
        "index_bytes": 70,
    },
    "ArtifactStoredResponse": {"size": 1024},
    "ArtifactCopyRequest": {"path": "a/report.xml", "new_path": "b/report.xml"},
    "InputsResponse": {
        "trusted": True,
        "git_access": None,
        "caches": [{"key": ["pip", "file:requirements.txt"], "paths": [".cache"], "restore_keys": []}],
        "run_files": {
            "problem": None,
            "variables": {"version": "1.2.3"},
            "has_artifacts": False,
            "ci_sha": None,
            "user": None,
        },
    },
    "KnownHostsRequest": {"lines": "git.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA\n"},
    "CacheLookup": {"number": 0, "key": "pip-3f2a"},
    "CacheLookupResponse": {
        "cache": {"cache_id": _RUN_ID, "key": "pip-3f2a", "size": 1024},
        "damaged": [],
    },
    "ExpectedCachesBody": {"caches": [{"key": "pip-3f2a", "paths": [".cache"]}]},
    "ExpectedCachesResponse": {"caches": [{"key": "pip-3f2a", "paths": [".cache"]}]},
    "ExpectCachesResponse": {"may_save": True},
    "CacheStoredResponse": {"size": 1024},
    "TokenRequest": {
        "name": "nightly build",
        "expires_at": "2027-01-31T12:00:00Z",
        "scopes": ["jobs:write"],
    },
    "NewTokenResponse": _TOKEN | {"token": "rct_" + 32 * "5e"},
    "TokenListResponse": {"tokens": [_TOKEN | {"last_used_at": None, "is_active": True}]},
    "UserResponse": _USER,
    "UserListResponse": {"users": [_USER]},
    "UserRequest": {"username": "ann", "email": "ann@example.com", "role": "user"},
    "UserChange": {"is_active": False},
    "InvitationRequest": {"email": "ann@example.com"},
    "InvitationResponse": {
        "invitation_id": "0198c0de-4d5e-7f6a-8b7c-8d9e0f1a2b3c",
        "invitation": _INVITATION,
        "role": "user",
        "email": "ann@example.com",
        "created_at": _CREATED,
        "expires_at": "2026-02-07T12:00:00.000Z",
    },
    "LogSearchResponse": {
        "matches": [{"line": 118, "text": "FAILED tests/test_count.py::test_empty_text"}],
        "next_line": None,
    },
    "LinkResponse": {
        "url": "https://ci.example.com/sign-in?link=rcs_" + 32 * "5e",
        "expires_at": "2026-01-31T12:10:00.000Z",
    },
    "RegisterRequest": {"invitation": _INVITATION, "username": "ann"},
    "RegisterResponse": _TOKEN | {"token": "rct_" + 32 * "5e", "user": _USER},
    "AuditResponse": {
        "deeds": [
            {
                "at": _CREATED,
                "user_id": _USER_ID,
                "token_id": _TOKEN_ID,
                "address": "192.0.2.7",
                "request_id": "0198c0de-5e6f-7a7b-9c8d-9e0f1a2b3c4d",
                "action": "job.submit",
                "subject": _JOB_ID,
            }
        ],
        "total": 1,
        "limit": 20,
        "next_cursor": None,
    },
    "HealthResponse": {
        "status": "OK",
        "version": "0.1.0",
        "verification": {"verified": True, "user_authenticated": True, "user_id": _USER_ID},
    },
    "RetentionResponse": {
        "keep_jobs": 10_000,
        "keep_days": 0,
        "keep_bytes": 20 << 30,
        "keep_image_days": 14,
        "keep_source_days": 14,
        "max_cache_bytes": 10 << 30,
    },
    "ReadyResponse": {
        "checks": {"database": "ok", "docker": "ok"},
        "ages_s": {"database": 0.0, "docker": 0.2},
    },
}
