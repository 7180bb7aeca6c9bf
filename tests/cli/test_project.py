"""``reactorcide project``: projects and their members, on a service of these tests' own."""

import uuid

from tests.cli.conftest import Program, Service
from tests.support.runs import repository

WORKFLOW = "name: CI\non: push\njobs: {a: {command: 'true'}}\n"


def test_project_is_created_listed_changed_and_removed(reactorcide: Program, service: Service) -> None:
    source = repository(service.sources / uuid.uuid4().hex, {"workflows/ci.yaml": WORKFLOW})
    project_id = reactorcide.fine("project", "add", "acme/site", "--git", f"file://{source.path}").text
    assert "acme/site" in reactorcide.fine("project", "list").text
    reactorcide.fine("user", "create", "bob")
    reactorcide.fine("project", "member", "add", "acme/site", "bob", "--role", "read")
    output = reactorcide.fine("project", "show", "acme/site").text
    assert f"acme/site ({project_id})" in output
    assert "bob" in output
    started = ("runs", "start", "--project", "acme/site", "--ref", "main", "--follow", "--json")
    run = reactorcide.fine(*started).json
    listed = reactorcide.fine("runs", "list", "--project", "acme/site", "--json").json
    assert [item["run_id"] for item in listed["runs"]] == [run["run_id"]]
    assert "Project     acme/site" in reactorcide.fine("runs", "show", run["run_id"]).text
    reactorcide.fine("project", "member", "remove", "acme/site", "bob")
    assert "bob is not a member of acme/site" in reactorcide.refused(
        "project", "member", "remove", "acme/site", "bob"
    )
    reactorcide.fine("project", "change", "acme/site", "--name", "acme/new", "--visibility", "internal")
    assert "internal" in reactorcide.fine("project", "show", "acme/new").text
    reactorcide.fine("project", "remove", "acme/new")
    assert "there is no project 'acme/new'" in reactorcide.refused("project", "show", "acme/new")


def test_project_settings_and_webhook_are_shown(reactorcide: Program, service: Service) -> None:
    token = service.sources / "token"
    token.write_text("secret-of-the-forge\n")
    added = reactorcide.fine(
        *("project", "add", "acme/hooked", "--git", "https://git.example/acme/hooked.git"),
        *("--forge", "gitea", "--token", f"@{token}", "--allow-event", "push", "--max-running", "3"),
    )
    project_id = added.text
    assert f"Webhook: /api/v1/hooks/{project_id}" in added.errors
    secret = added.errors.rpartition("Secret:  ")[2].partition("\n")[0]
    for missing in (
        "Repository: git: cannot reach https://git.example/",
        "Token: cannot reach https://git.exam",
    ):
        assert missing in added.errors
    assert secret.startswith("whsec_")
    output = reactorcide.fine("project", "show", "acme/hooked").text
    for line in ("Forge           gitea", "Credentials     token, webhook secret", "Events          push"):
        assert line in output
    assert "Max. running    3" in output
    reactorcide.fine("project", "change", "acme/hooked", "--disable", "--allow-event", "")
    output = reactorcide.fine("project", "show", "acme/hooked").text
    assert "private, disabled" in output
    assert "Events" not in output
    renewed = reactorcide.fine("project", "webhook-secret", "acme/hooked").errors
    assert secret not in renewed
    assert "previous webhook secret" in reactorcide.fine("project", "show", "acme/hooked").text
    reactorcide.fine("project", "webhook-secret", "acme/hooked", "--forget-previous")
    assert "previous" not in reactorcide.fine("project", "show", "acme/hooked").text
    assert "never on the command line" in reactorcide.refused(
        "project", "change", "acme/hooked", "--token", "in-the-open"
    )


def test_deploy_key_and_host_keys_are_managed(reactorcide: Program, service: Service) -> None:
    reactorcide.fine("project", "add", "acme/private", "--git", "git@git.example:acme/private.git")
    public = reactorcide.fine("project", "deploy-key", "acme/private").text.strip()
    assert public.startswith("ssh-ed25519 ")
    hosts = service.sources / "hosts"
    hosts.write_text("git.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA\n")
    reactorcide.fine("project", "change", "acme/private", "--known-hosts", f"@{hosts}")
    output = reactorcide.fine("project", "show", "acme/private").text
    assert public in output
    assert "git.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA" in output
    hosts.write_text("git.example is my friend")
    assert "lines of a known_hosts file" in reactorcide.refused(
        "project", "change", "acme/private", "--known-hosts", f"@{hosts}"
    )
    reactorcide.fine("project", "change", "acme/private", "--known-hosts", "")
    reactorcide.fine("project", "deploy-key", "acme/private", "--remove")
    output = reactorcide.fine("project", "show", "acme/private").text
    assert "ssh-ed25519" not in output


def test_project_schedules_are_managed(reactorcide: Program, service: Service) -> None:
    text = "name: N\non: schedule\nvars: {v: one}\njobs: {a: {command: 'true'}}\n"
    source = repository(service.sources / uuid.uuid4().hex, {"workflows/n.yaml": text})
    reactorcide.fine("project", "add", "acme/planned", "--git", f"file://{source.path}")
    of_project = ("project", "schedules")
    added = reactorcide.fine(
        *(*of_project, "add", "acme/planned", "nightly", "30 2 * * *", "--timezone", "Europe/Berlin")
    ).text
    assert "30 2 * * * in Europe/Berlin" in added
    assert added.count("T00:30:00.000Z") + added.count("T01:30:00.000Z") == 5
    assert "'30 2' is not a cron expression" in reactorcide.refused(
        *of_project, "add", "acme/planned", "other", "30 2"
    )
    changed = reactorcide.fine(
        *(*of_project, "change", "acme/planned", "nightly", "--workflow", "n", "--var", "v=two", "--disabled")
    ).text
    assert "v=two" in changed
    assert "never: it is disabled" in changed
    view = reactorcide.fine(*of_project, "run", "acme/planned", "nightly", "--json").json
    (run_id,) = view["occurrences"][0]["run_ids"]
    assert "started by hand" in reactorcide.fine(*of_project, "show", "acme/planned", "nightly").text
    assert reactorcide.fine("runs", "show", run_id, "--json").json["event"]["name"] == "schedule"
    assert "disabled" in reactorcide.fine(*of_project, "list", "acme/planned").text
    reactorcide.fine(
        *of_project, "change", "acme/planned", "nightly", "--name", "often", "--workflow", "", "--enabled"
    )
    refused = reactorcide.refused(*of_project, "show", "acme/planned", "nightly")
    assert "acme/planned has no schedule 'nightly'" in refused
    reactorcide.fine(*of_project, "remove", "acme/planned", "often")
    assert reactorcide.fine(*of_project, "list", "acme/planned", "--json").json == {"schedules": []}


def test_run_with_two_sources_is_refused(reactorcide: Program) -> None:
    result = reactorcide("runs", "start", "--project", "a", "--git", "https://git.example/a.git")
    assert result.code == 2
    assert "Give a --project" in result.errors
