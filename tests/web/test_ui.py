"""The web page without a browser: access, allowed resources, and addresses."""

import re
import resource
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from markupsafe import escape

from reactorcide.accounts import users
from reactorcide.app.service import Service
from reactorcide.domain.errors import NotFound
from reactorcide.domain.jobs import JobStatus
from reactorcide.domain.runs import RunStatus
from reactorcide.lib.clock import now_ms, rfc3339
from reactorcide.settings import Settings
from reactorcide.web.auth import NEEDS
from reactorcide.web.ui import ask, markdown, pages, shown
from reactorcide.web.ui.graph import layout
from tests.support.webhooks import owed_message


def service(tmp_path: Path, **settings: object) -> Service:
    """Return a service whose database exists; nothing of it is started."""
    new = Service(Settings(data_dir=tmp_path, **settings), {})  # type: ignore[arg-type]  # as the tests say
    tmp_path.mkdir(exist_ok=True)
    new._database.migrate()
    new._store.instance.id("0198c0de-0000-7000-8000-000000000000")
    new._store.instance.open_vault()
    return new


class Visitor:
    """A browser of the admin, without scripts."""

    def __init__(self, app: Flask, token: str, base_url: str = "http://localhost") -> None:
        self.token = token
        self.base_url = base_url
        self.client: FlaskClient = app.test_client()

    def sign_in(self, **form: str) -> object:
        """Send the form."""
        return self.client.post("/sign-in", data=form or {"token": self.token}, base_url=self.base_url)


@pytest.fixture
def visitor(tmp_path: Path) -> Iterator[Visitor]:
    site = service(tmp_path / "data")
    token = users.bootstrap(site._accounts, tmp_path / "admin-token")
    assert token is not None
    yield Visitor(site.wsgi, token)
    site.stop()


def csrf_token(text: str) -> str:
    """Return the CSRF token of a page."""
    match = re.search('data-csrf="([0-9a-f]{64})"', text)
    assert match is not None
    return match[1]


def test_session_cookie_is_limited_to_this_service(visitor: Visitor) -> None:
    response = visitor.client.post("/sign-in", data={"token": visitor.token, "next": "/jobs?status=failed"})
    assert (response.status_code, response.headers["Location"]) == (303, "/jobs?status=failed")
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/" in cookie
    assert "Secure" not in cookie
    assert f"Max-Age={14 * 86_400}" in cookie
    assert visitor.client.get("/runs").status_code == 200


@pytest.mark.parametrize("base_url", ["http://10.1.2.3", "https://localhost"])
def test_beyond_loopback_or_over_tls_the_cookie_is_secure(visitor: Visitor, base_url: str) -> None:
    response = visitor.client.post("/sign-in", data={"token": visitor.token}, base_url=base_url)
    assert "; Secure" in response.headers["Set-Cookie"]
    page = visitor.client.get("/sign-in", base_url=base_url).text
    assert ("Signing in needs HTTPS" in page) == base_url.startswith("http:")


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x"]
)
def test_sign_in_redirects_to_no_other_site(visitor: Visitor, target: str) -> None:
    response = visitor.client.post("/sign-in", data={"token": visitor.token, "next": target})
    assert response.headers["Location"] == "/"


def test_below_a_path_it_leads_to_nothing_beside(tmp_path: Path) -> None:
    site = service(tmp_path / "data", public_url="http://localhost/ci")
    token = users.bootstrap(site._accounts, tmp_path / "admin-token")
    client = site.wsgi.test_client()
    own = "/ci/jobs?name=../x"
    beside = ("/evil", "/ci", "/cider", "/ci/../evil", "/ci/%2e%2E/evil", "/ci/..%2fevil", "/ci/./.././x?y")
    for target in (own, *beside, "//ci/x"):
        response = client.post("/ci/sign-in", data={"token": token, "next": target})
        assert response.status_code == 303
        assert response.headers["Location"] == (own if target == own else "/ci/")
    assert client.get("/ci/").headers["Location"] == "/ci/runs"
    assert site.wsgi.test_client().post("/ci/sign-out").headers["Location"] == "/ci/sign-in"
    site.stop()


def test_form_of_another_site_is_refused(visitor: Visitor) -> None:
    for origin in ("https://evil.example", "null"):
        response = visitor.client.post("/sign-in", data={"token": visitor.token}, headers={"Origin": origin})
        assert response.status_code == 403
        assert "Set-Cookie" not in response.headers
    response = visitor.client.post(
        "/sign-in", data={"token": visitor.token}, headers={"Origin": "http://localhost"}
    )
    assert response.status_code == 303


def test_changes_by_cookie_need_the_csrf_token(visitor: Visitor) -> None:
    visitor.sign_in()
    page = visitor.client.get("/account").text
    for headers in ({}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": "é"}):
        response = visitor.client.post("/api/v1/tokens", json={"name": "a"}, headers=headers)
        assert response.status_code == 403
        assert "CSRF" in (response.json or {})["message"]
    assert visitor.client.post("/sign-out").status_code == 403
    # It has no cookie of its own here, so that only the token counts.
    bearer = visitor.client.application.test_client()
    authorization = {"Authorization": f"Bearer {visitor.token}"}
    assert bearer.post("/api/v1/tokens", json={"name": "b"}, headers=authorization).status_code == 201
    headers = {"X-CSRF-Token": csrf_token(page)}
    assert visitor.client.post("/api/v1/tokens", json={"name": "c"}, headers=headers).status_code == 201


def test_signing_out_ends_the_session(visitor: Visitor) -> None:
    visitor.sign_in()
    cookie = visitor.client.get_cookie("reactorcide_session")
    assert cookie is not None
    token = csrf_token(visitor.client.get("/account").text)
    response = visitor.client.post("/sign-out", data={"csrf_token": token})
    assert (response.status_code, response.headers["Location"]) == (303, "/sign-in")
    visitor.client.set_cookie("reactorcide_session", cookie.value)
    response = visitor.client.get("/runs")
    assert response.status_code == 401
    assert "your session has ended" in response.text


def test_sign_in_link_works_once_and_by_post(visitor: Visitor) -> None:
    authorization = {"Authorization": f"Bearer {visitor.token}"}
    url = (visitor.client.post("/api/v1/links", headers=authorization).json or {})["url"]
    address = url.removeprefix("http://localhost")
    link = address.partition("link=")[2]
    # What looks at links before people do changes nothing.
    for _ in range(2):
        response = visitor.client.get(address)
        assert response.status_code == 200
        assert "Set-Cookie" not in response.headers
    assert visitor.client.post("/sign-in", data={"link": link}).status_code == 303
    assert visitor.client.get("/runs").status_code == 200
    again = visitor.client.application.test_client().post("/sign-in", data={"link": link})
    assert again.status_code == 403
    assert "was used or has expired" in again.text


def test_invitation_creates_and_signs_in_a_user(visitor: Visitor) -> None:
    authorization = {"Authorization": f"Bearer {visitor.token}"}
    response = visitor.client.post("/api/v1/invitations", json={}, headers=authorization)
    form = {"invitation": (response.json or {})["invitation"], "username": "ann"}
    ann = visitor.client.application.test_client()
    refused = ann.post("/sign-in", data=form | {"username": "admin"})
    assert refused.status_code == 400
    assert "there is a user" in refused.text
    assert ann.post("/sign-in", data=form).status_code == 303
    assert "ann" in ann.get("/account").text
    assert ann.get("/admin").status_code == 403


def test_every_page_has_a_csp_and_loads_only_from_the_service(visitor: Visitor) -> None:
    visitor.sign_in()
    for address in (
        "/sign-in",
        "/runs",
        "/jobs",
        "/queues",
        "/workers",
        "/projects",
        "/account",
        "/admin",
        "/no",
    ):
        response = visitor.client.get(address, headers={"Accept": "text/html"})
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r'(?:src|href|action)="(?:https?:)?//', response.text), address
        assert not re.search(r"\son[a-z]+=|\sstyle=|<style|<script(?! type=\"module\" src=)", response.text)


def test_account_page_shows_webhooks_and_redeliverable_messages(tmp_path: Path) -> None:
    site = service(tmp_path / "data")
    token = users.bootstrap(site._accounts, tmp_path / "admin-token")
    assert token is not None
    visitor = Visitor(site.wsgi, token)
    visitor.sign_in()
    new = {"url": "https://hook.example/<b>", "events": ["run"]}
    headers = {"Authorization": f"Bearer {token}"}
    webhook_id = visitor.client.post("/api/v1/webhooks", json=new, headers=headers).json["webhook_id"]  # type: ignore[index]  # JSON
    message_id = "0198c0de-0000-7000-8000-000000000001"
    site._store.webhooks.owe(owed_message(webhook_id, type_="run.failed", message_id=message_id))
    site._store.webhooks.give_up(webhook_id, "it answered <410>", owed_up_to_ms=1)
    page = visitor.client.get("/account").text
    for part in (new["url"], "it answered <410>"):
        assert str(escape(part)) in page
    assert "given up" in page
    assert f'data-call="POST /webhooks/{webhook_id}/messages/{message_id}/redeliver"' in page
    site.stop()


def test_first_load_is_small_and_cacheable(visitor: Visitor) -> None:
    visitor.sign_in()
    page = visitor.client.get("/runs", headers={"Accept-Encoding": "gzip"})
    sizes = [len(page.data)]
    assets = set(re.findall(r'/static/[^"]+', page.text))
    # All that any page loads.
    folder = assets.copy().pop().rpartition("/")[0]
    assets |= {f"{folder}/{name}" for name in ("log.js", "ansi.js")}
    for address in assets:
        with visitor.client.get(address, headers={"Accept-Encoding": "gzip"}) as response:
            assert response.status_code == 200
            assert "immutable" in response.headers["Cache-Control"]
            assert response.headers["Content-Encoding"] == "gzip"
            sizes.append(len(response.data))
    assert sum(sizes) <= 100_000
    assert visitor.client.get("/static/x/none.js").status_code == 404
    with visitor.client.get("/static/old/app.js") as response:
        assert response.headers["Cache-Control"] == "no-cache"


def test_pages_work_below_a_path(tmp_path: Path) -> None:
    site = service(tmp_path, public_url="http://localhost/ci")
    client = site.wsgi.test_client()
    # One proxy removes the path, another does not.
    for address in ("/sign-in", "/ci/sign-in"):
        page = client.get(address).text
        links = re.findall(r'(?:src|href|action)="([^"#]+)"', page)
        assert links
        assert all(link.startswith("/ci/") for link in links), links
        assert 'data-api="/ci/api/v1"' in page
    response = client.post("/ci/sign-in", data={"token": "x" * 20})
    assert response.status_code == 403
    assert client.get("/ci/api/v1/health").status_code == 200
    assert client.get("/cider").status_code == 404
    site.stop()


def test_no_ui_removes_all_pages(tmp_path: Path) -> None:
    site = service(tmp_path, no_ui=True)
    client = site.wsgi.test_client()
    for address in ("/", "/sign-in", "/runs", "/static/x/app.js"):
        assert client.get(address).status_code == 404
    assert client.get("/api/v1/health").status_code == 200
    assert site.sign_in_link() is None
    site.stop()


def test_invalid_filters_and_addresses_are_explained(visitor: Visitor) -> None:
    visitor.sign_in()
    for address, status, text in (
        ("/runs?status=green", 400, "That cannot be asked"),
        ("/jobs?name=&status=", 200, "No jobs yet"),
        ("/jobs?colour=red", 400, "there is no such field"),
        ("/runs?project=none", 404, "there is no project none"),
        ("/runs?branch=none", 200, "No run matches"),
        ("/runs", 200, "reactorcide runs start"),
        ("/nowhere", 404, "There is nothing here"),
    ):
        response = visitor.client.get(address, headers={"Accept": "text/html"})
        assert (response.status_code, text in response.text) == (status, True), (address, response.text)
        assert 'aria-label="Main"' in response.text
    visitor.client.set_cookie("reactorcide_session", "rcs_" + "0" * 64)
    ended = visitor.client.get("/nowhere", headers={"Accept": "text/html"})
    assert (ended.status_code, 'aria-label="Main"' in ended.text) == (404, False)
    assert (visitor.client.get("/api/v1/nowhere", headers={"Accept": "text/html"}).json or {})["error"]


def test_every_page_needs_the_scopes_of_its_api_calls() -> None:
    """``ask`` looks the scopes up by the name of the route's function, which has to be an endpoint."""
    app = Service(Settings(data_dir=Path("/nowhere")), {}).wsgi
    endpoints = {
        rule.endpoint: rule.rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())
    }
    calls = re.findall(r"ask(?:_text|_if_allowed)?\(\s*(\w+)\.(\w+)", Path(pages.__file__).read_text())
    assert len(calls) > 15
    for folder, function in calls:
        module = getattr(pages, folder)
        endpoint = f"{module.__name__.split('.')[-2]}.{function}"
        assert f"GET {endpoints[endpoint]}" in NEEDS
    assert ask.__name__
    assert issubclass(NotFound, Exception)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\u202eb\u2066c\u200bd\ufeffe", "a\ufffdb\ufffdc\ufffdd\ufffde"),
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x1b]8;;x\x1b\\link \x1b(B\x1b[2Jx", "red link x"),
        ("\x1b[" + "1" * 100_000, "1" * 100_000),
        ("tab\tline\nמהה", "tab\tline\nמהה"),
        ("\x07\x9b31m", "\ufffd\ufffd31m"),
        ("a\u200eb\u061cc\xadd\u200de\U000e0041", "a\ufffdb\ufffdc\ufffdd\ufffde\ufffd"),
        ("👩\u200d💻 ✔\ufe0f \u0645\u06cc\u200c\u062e", "👩\u200d💻 ✔\ufe0f \u0645\u06cc\u200c\u062e"),
    ],
)
def test_text_is_visible_and_control_characters_are_escaped(text: str, expected: str) -> None:
    assert shown.visible(text) == expected
    assert shown.finalize(escape("<\u202e")) == "&lt;\u202e"
    assert len(str(shown.finalize(text * 9000))) <= 40_000


def test_relative_time_has_the_exact_time() -> None:
    time = rfc3339(now_ms() - 7_200_000)
    expected = f'<time datetime="{time}" title="{time[:10]} {time[11:19]} UTC" data-ago>2 h ago</time>'
    assert shown.ago(time) == expected


def test_each_state_has_a_sign_a_word_and_an_icon() -> None:
    looks = {status: shown.state(status) for status in (*JobStatus, *RunStatus, "skipped", "waiting")}
    assert "unknown" not in {look.word for look in looks.values()}
    assert len({(look.sign, look.kind) for look in looks.values()}) >= 6
    static = Path(str(files("reactorcide.web.ui"))) / "static"
    assert all((static / f"icon-{look.kind}.svg").is_file() for look in looks.values())
    assert shown.state("failed", allow_failure=True).kind == "warn"


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "![x](https://evil.example/pixel.png)",
        "<img src=x onerror=alert(1)>",
        '<a href="data:text/html,x">x</a>',
        "[x](&#x6A;avascript:alert(1))",
        "| a |\n| - |\n| <iframe src=//evil.example> |",
    ],
)
def test_a_summary_cannot_run_or_load_anything(text: str) -> None:
    html = str(markdown.html(text))
    assert not re.search(r"<(script|img|iframe|style|form|input|svg|object)", html)
    assert not re.search(r'<[^>]+="(?:javascript|data|vbscript)', html, re.IGNORECASE)
    assert not re.search(r"<[^>]+\son\w+=", html)


def test_a_summary_is_formatted() -> None:
    html = str(markdown.html("# Title\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n[docs](https://example.com)"))
    assert "<h1>Title</h1>" in html
    assert "<td>1</td>" in html
    assert 'rel="noopener noreferrer nofollow"' in html


@pytest.mark.parametrize(
    "text",
    [
        "[" * markdown.MAX_CHARS,
        f"[x]: {'u' * 100_000}\n\n" + "[x]" * 10_000,
    ],
    ids=["nested", "references"],
)
def test_too_expensive_summary_is_plain_text(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # However busy this machine is.
    monkeypatch.setattr(markdown, "_TIMEOUT_S", 120.0)
    used_s = cpu_s_of_programs()
    html = markdown.html(text)
    assert "laying it out needs too much" in html
    assert len(html) < 2 * markdown.MAX_CHARS
    assert cpu_s_of_programs() - used_s < 5
    # It is known by then.
    used_s = cpu_s_of_programs()
    assert markdown.html(text) == html
    assert cpu_s_of_programs() == used_s


def cpu_s_of_programs() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def node(name: str, *needs: str, job: str | None = None) -> dict[str, object]:
    return {"name": name, "job": job or name, "needs": list(needs)}


def test_graph_has_a_column_per_depth_and_no_redundant_edge() -> None:
    nodes = [
        node("lint"),
        node("a (1)", job="a"),
        node("a (2)", job="a"),
        node("b", "lint", "a"),
        node("c", "b", "lint"),
    ]
    graph = layout(nodes)
    x = {str(box.node["name"]): box.x for box in graph.boxes}
    assert x["lint"] == x["a (1)"] == x["a (2)"] < x["b"] < x["c"]
    # lint to c goes by way of b.
    assert len(graph.edges) == 4
    places = {(box.x, box.y) for box in graph.boxes}
    assert len(places) == len(nodes)
    assert all(box.x < graph.width and box.y < graph.height for box in graph.boxes)


def test_the_largest_graph_is_laid_out_quickly() -> None:
    nodes = [node(f"n{index}", *(f"n{at}" for at in range(max(0, index - 5), index))) for index in range(500)]
    assert len(layout(nodes).boxes) == 500
