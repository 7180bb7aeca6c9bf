"""``reactorcide webhook``, on a service of these tests' own."""

from tests.cli.conftest import Program


def test_webhook_is_created_listed_changed_and_removed(reactorcide: Program) -> None:
    reactorcide.fine("project", "add", "acme/told", "--git", "https://git.example/acme/told.git")
    added = reactorcide.fine("webhook", "add", "https://hook.example/", "--project", "acme/told")
    webhook_id = added.text
    assert "Secret: whsec_" in added.errors
    listed = reactorcide.fine("webhook", "list").text
    assert webhook_id in listed
    assert "failure,recovery" in listed
    reactorcide.fine("webhook", "change", webhook_id, "--event", "run")
    (webhook,) = reactorcide.fine("webhook", "list", "--json").json["webhooks"]
    assert webhook["events"] == ["run"]
    assert reactorcide.fine("webhook", "messages", webhook_id, "--json").json["messages"] == []
    assert "there is no message" in reactorcide.refused("webhook", "redeliver", webhook_id, webhook_id)
    assert "whsec_" not in reactorcide.fine("webhook", "list", "--json").text
    assert reactorcide.fine("webhook", "secret", webhook_id).text.startswith("whsec_")
    reactorcide.fine("webhook", "remove", webhook_id)
    assert "there is no webhook" in reactorcide.refused("webhook", "messages", webhook_id)
    reactorcide.fine("project", "remove", "acme/told")
