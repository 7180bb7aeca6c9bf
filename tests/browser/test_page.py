"""The web page in Chromium, on a real service: one module, so that one service and one browser do."""

import itertools
import json
import re
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import docker
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.browser.screenshots import WIDTHS, addresses
from tests.browser.showcase import QUICK_WORKFLOW, Showcase, fill
from tests.browser.support import Relay, launch, visitor
from tests.conftest import NewService, ended_cleanly
from tests.support.client import Job
from tests.support.image import Images
from tests.support.runs import over, repository, start
from tests.support.service import Service

MARKUP = "<img src=x onerror=alert(1)>"
HIDDEN = "\u202e\u2066\u200b\ufeff\x1b\x07"
HOSTILE = (
    f"{MARKUP}\"'><script>alert(2)</script>javascript:alert(3)"
    "\u202egnp.exe\u2066\u200b\ufeff\x1b[31mred\x1b]0;title\x07"
)
"""Markup, a script's URL, what controls terminals, and invisible characters or such that turn text around."""
_MAX_PAGE_CHARS = 500_000
_THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_WAIT_MS = 90_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


@pytest.fixture(scope="module")
def site(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, engine: docker.APIClient, images: Images
) -> Iterator[Service]:
    service = Service(
        tmp_path_factory.mktemp("ui"), images.default, concurrency=3, cancel_grace=1, queue="default"
    )
    yield from ended_cleanly(service.start(), engine)


@pytest.fixture(scope="module")
def showcase(site: Service) -> Iterator[Showcase]:
    showcase = fill(site, site.admin)
    yield showcase
    site.admin.request("POST", f"runs/{showcase.active['run_id']}/cancel")
    for job in site.admin.get("jobs", status="queued")["jobs"]:
        site.admin.cancel(job)


def set_hidden(page: Page, is_hidden: bool) -> None:
    """Let a page think that its tab is hidden, or is not."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); "
        "document.dispatchEvent(new Event('visibilitychange')); }",
        is_hidden,
    )


def test_link_of_a_failed_run_shows_the_test_and_its_message(
    browser: Browser, site: Service, showcase: Showcase
) -> None:
    with visitor(browser, site, None) as page:
        # As a forge's link does: signing in leads on to it.
        page.goto(f"/runs/{showcase.failed['run_id']}")
        page.get_by_label("Token").fill(str(site.admin.token))
        page.get_by_role("button", name="Sign in").click()
        number = showcase.failed["number"]
        expect(page).to_have_title(f"✗ CI #{number}")
        assert "icon-bad" in str(page.locator("#icon").get_attribute("href"))
        expect(page.get_by_text("AssertionError: assert 1 == 0").first).to_be_in_viewport()
        page.get_by_role("link", name="test_only_spaces").click()
        expect(page).to_have_url(f"{site.base_url}/jobs/{showcase.failed_job}#test-2")
        expect(page.locator("#test-2")).to_be_in_viewport()
        expect(page.locator("#test-2 .message").first).to_contain_text("assert 4 == 0")
        expect(page).to_have_title(f"✗ unit (3.12) · CI #{number}")
        expect(page.locator(".prose td").first).to_have_text("wordstats/count.py")


def test_run_is_started_and_watched_without_a_reload(
    browser: Browser, site: Service, showcase: Showcase
) -> None:
    with visitor(browser, site) as list_page, visitor(browser, site) as page:
        list_page.goto("/runs")
        list_page.evaluate("window.isTheSame = true")
        page.goto(f"/projects/{showcase.project_id}")
        page.get_by_label("Branch, tag or commit").fill("main")
        page.get_by_label("Workflow").fill("quick")
        page.get_by_role("button", name="Start a run").click()
        page.wait_for_url("**/runs/*")
        page.evaluate("window.isTheSame = true")
        expect(page).to_have_title(re.compile(r"✓ Quick #\d+"), timeout=_WAIT_MS)
        assert page.evaluate("window.isTheSame")
        assert "icon-good" in str(page.locator("#icon").get_attribute("href"))
        expect(page.locator("a.node.good")).to_have_count(2)
        run_id = page.url.rpartition("/")[2]
        expect(list_page.locator(f"#run-{run_id} .state.good")).to_be_visible(timeout=_WAIT_MS)
        assert list_page.evaluate("window.isTheSame")


def test_approved_run_of_a_fork_is_watched_without_signing_in(browser: Browser, site: Service) -> None:
    text = QUICK_WORKFLOW.replace("on: manual", "on: pull_request")
    source = repository(site.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": text})
    project = {"name": "acme/open", "git_url": f"file://{source.path}", "visibility": "public"}
    assert site.admin.request("POST", "projects", json=project).status_code == 201
    event = {"name": "pull_request_opened", "is_fork": True}
    run = site.admin.request("POST", "runs", json={"project": "acme/open", "event": event}).json()
    address = f"/runs/{run['run_id']}"
    site.admin.request("POST", f"{address[1:]}/cancel")
    held = site.admin.request("POST", f"{address[1:]}/rerun", json={"only": "all"}).json()
    assert held["waits_for_approval"]
    with visitor(browser, site) as page, visitor(browser, site, None) as stranger:
        for opened in (stranger, page):
            opened.goto(address)
            expect(opened.locator("h1 .state")).to_contain_text("waiting")
            expect(opened.locator(".callout.info")).to_contain_text("approval")
        stranger.evaluate("window.isTheSame = true")
        # What only members may do is not shown to others.
        expect(stranger.locator("[data-call]")).to_have_count(0)
        page.get_by_role("button", name="Approve").click()
        for opened in (stranger, page):
            expect(opened).to_have_title(f"✓ Quick #{run['number']}", timeout=_WAIT_MS)
        assert stranger.evaluate("window.isTheSame")
        expect(page.get_by_role("button", name="Approve")).to_have_count(0)


def test_job_shows_its_attempts_services_and_artifacts(
    browser: Browser, site: Service, images: Images
) -> None:
    command = (
        'for i in $(seq 9); do echo "$i of attempt $REACTORCIDE_ATTEMPT"; done; '
        'echo $REACTORCIDE_ATTEMPT > /job/artifacts/attempt.txt; echo "<a>" > "/job/artifacts/a b.html"; '
        "echo '# Done' > /job/artifacts/summary.md; [ $REACTORCIDE_ATTEMPT = 2 ] || { sleep 1; exit 1; }"
    )
    service = {"image": images.default, "command": "sh -c 'echo ready; exec sleep 600'"}
    job = site.admin.submit(command, retries=1, services={"db": service})
    with visitor(browser, site) as page:
        page.goto(f"/jobs/{job['job_id']}")
        expect(page.locator("h1 .state")).to_contain_text("passed", timeout=_WAIT_MS)
        # It is the log of the last attempt, also for who had the one before on the screen.
        expect(page.locator(".line .x")).to_have_text([f"{i} of attempt 2" for i in range(1, 10)])
        expect(page.locator(".prose h1, .prose h3")).to_have_text("Done")
        expect(page.locator("#attempts + .table tbody tr")).to_have_count(2)
        log_of_service = page.get_by_role("link", name="Log of db").get_attribute("href")
        assert page.request.get(str(log_of_service)).text() == "ready\n"
        with page.expect_download() as download:
            page.get_by_role("link", name="Download all").click()
        with tarfile.open(download.value.path()) as archive:
            assert sorted(archive.getnames()) == ["a b.html", "attempt.txt", "summary.md"]
        page.get_by_role("link", name="attempt 1").click()
        expect(page.locator(".line .x").first).to_have_text("1 of attempt 1")


def test_run_is_found_opened_and_repeated_by_keyboard(browser: Browser, site: Service) -> None:
    source = repository(site.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": QUICK_WORKFLOW})
    run = over(site.admin, start(site.admin, source, event={"name": "manual"}), _WAIT_MS / 1000)
    with visitor(browser, site) as page:

        def tab_to(selector: str) -> None:
            for _ in range(60):
                page.keyboard.press("Tab")
                if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                    return
            pytest.fail(f"no Tab leads to {selector}")

        page.goto("/runs")
        tab_to(f'[href="/runs/{run["run_id"]}"]')
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/runs/{run['run_id']}")
        page.wait_for_load_state()
        tab_to('[data-call$="/rerun"]')
        page.keyboard.press("Enter")
        expect(page.locator("h1 .number")).to_have_text("#" + str(run["number"]) + ".2")
    over(site.admin, run, _WAIT_MS / 1000)


def test_log_continues_after_a_lost_connection_without_duplicates(browser: Browser, site: Service) -> None:
    job = site.admin.submit(
        'i=0; while [ $i -lt 1900 ]; do i=$((i+1)); echo "line $i of it"; sleep 0.05; done', name="count"
    )
    relay = Relay(site.port)
    with visitor(browser, site, base_url=f"http://127.0.0.1:{relay.port}") as page:
        page.goto(f"/jobs/{job['job_id']}")
        pane, lines = page.locator(".log-pane"), page.locator(".line")
        expect(pane.get_by_text("line 30 of it", exact=True)).to_be_attached(timeout=_WAIT_MS)
        expect(lines.last).to_be_in_viewport()
        relay.cut()
        expect(page.get_by_text("The log cannot be fetched; trying again…")).to_be_visible()
        expect(page.get_by_text("The connection to the service is lost.")).to_be_visible()
        before = lines.count()
        relay.mend()
        expect(page.get_by_text("The log cannot be fetched; trying again…")).to_be_hidden()
        expect(page.get_by_text("The connection to the service is lost.")).to_be_hidden()
        expect(pane.get_by_text(f"line {before + 10} of it", exact=True)).to_be_attached()
        # Whoever scrolls up stays there, and sees how many lines have come.
        pane.evaluate("pane => { pane.scrollTop = 0; }")
        expect(page.get_by_role("button", name="new line")).to_be_visible()
        assert pane.evaluate("pane => pane.scrollTop") == 0
        page.get_by_role("button", name="new line").click()
        expect(lines.last).to_be_in_viewport()
        site.admin.cancel(job)
        expect(page.locator("h1 .state")).to_have_text("⊘cancelled", timeout=_WAIT_MS)
        site.admin.wait(job, deadline_s=_WAIT_MS / 1000)
        expect(page.locator(".line .x")).to_have_text(site.admin.log(job).decode().splitlines())
    relay.cut()


def test_page_works_below_a_path_behind_a_proxy(browser: Browser, new_service: NewService) -> None:
    relay = Relay()
    base = f"http://127.0.0.1:{relay.port}/ci"
    service = new_service(public_url=base, queue="none")
    relay.to = service.port
    # One proxy removes the path, another does not. Whatever the page asks for has to be below it.
    for relay.removes in ("/ci", ""):
        with visitor(browser, service, None, base_url=f"{base}/") as page:
            page.goto("jobs?name=below")
            page.get_by_label("Token").fill(str(service.admin.token))
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(f"{base}/jobs?name=below")
            assert [cookie["path"] for cookie in page.context.cookies()] == ["/ci"]
            job = service.admin.submit(name="below", queue_name="other")
            page.locator(f"#job-{job['job_id']} a").click()
            expect(page.locator("#icon")).to_have_attribute(
                "href", re.compile("^/ci/static/.*/icon-wait.svg")
            )
            expect(page.get_by_role("link", name="Raw")).to_have_attribute(
                "href", re.compile("^/ci/api/v1/jobs/")
            )
            page.get_by_role("button", name="Cancel").click()
            page.get_by_role("button", name="Run again").click()
            expect(page.locator("h1 .state")).to_contain_text("queued")
            assert page.url.startswith(f"{base}/jobs/")
            location = page.evaluate(
                "async () => (await fetch('/ci/api/v1/jobs', {method: 'POST', body: JSON.stringify("
                "{name: 'x', job_command: 'true', source_type: 'copy', queue_name: 'other'}), headers: "
                "{'Content-Type': 'application/json', 'X-CSRF-Token': document.documentElement.dataset.csrf}}"
                ")).headers.get('Location')"
            )
            assert page.request.get(location).status == 200
            assert location.startswith("/ci/api/v1/jobs/")
            page.goto("account")
            page.get_by_role("button", name="Sign out").click()
            page.wait_for_url(f"{base}/sign-in")
    relay.cut()


def test_large_log_renders_few_rows_and_every_line(browser: Browser, site: Service) -> None:
    job = site.admin.submit(
        'awk \'BEGIN { for (i = 1; i <= 400000; i++) { if (i % 1000 == 900) printf "\\033[35m"; '
        'print "ok number " i; if (i % 1000 == 600) printf "\\033[0m" }; '
        'printf "\\033[31mred\\nstill red\\033[0m not\\n"; print "10%\\r50%\\r100% done"; '
        'print "\\033[38;5;208mo\\033[38;2;1;2;3mt\\033[0m" }\'',
    )
    site.admin.wait(job, deadline_s=_WAIT_MS / 1000)
    site.admin.wait(job, deadline_s=_WAIT_MS / 1000)
    lines = site.admin.log(job).count(b"\n")
    with visitor(browser, site) as page:
        page.goto(f"/jobs/{job['job_id']}#L123456-L123457")
        expect(page.locator(".line.marked")).to_have_count(2)
        expect(page.locator(".line.marked .x").first).to_have_text("ok number 123456")
        expect(page.locator(".line.marked").first).to_be_in_viewport()
        assert page.locator(".line").count() < 200
        # It was switched on three hundred lines before, in another page of lines.
        expect(page.locator(".line.marked .f5")).to_have_count(2)
        pane = page.locator(".log-pane")
        pane.focus()
        page.keyboard.press("End")
        expect(page.locator(".line .n").last).to_have_text(str(lines))
        expect(page.get_by_text("100% done", exact=True)).to_be_in_viewport()
        expect(page.locator(".line", has_text="still red").locator(".f1")).to_have_text("still red")
        colours = page.locator(".line .x", has_text="ot").last.locator("span")
        assert colours.nth(0).evaluate("span => span.style.color") == "rgb(255, 135, 0)"
        assert colours.nth(1).evaluate("span => span.style.color") == "rgb(1, 2, 3)"
        page.get_by_label("Search the log").fill("NUMBER 2000")
        page.keyboard.press("Enter")
        # It goes on from what is in view, and then from the beginning.
        expect(page.get_by_text("1 of 111", exact=True)).to_be_visible()
        expect(page.locator(".line.now .x")).to_have_text("ok number 2000")
        page.keyboard.press("Shift+Enter")
        expect(page.locator(".line.now .x")).to_have_text("ok number 200099")
        page.get_by_label("Times").check()
        expect(page.locator(".line time").first).to_be_visible()
        page.get_by_label("Wrap").check()
        expect(page.locator(".log-pane.wrapped .line").first).to_be_visible()


def test_items_of_other_users_are_not_shown(browser: Browser, site: Service, showcase: Showcase) -> None:
    bob = site.add_user("bob")
    with visitor(browser, site, str(bob.token)) as page:
        page.goto("/runs")
        expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
        for address in (f"/runs/{showcase.failed['run_id']}", f"/jobs/{showcase.failed_job}"):
            page.goto(address)
            expect(page.get_by_text("belongs to somebody else")).to_be_visible()
        page.goto(f"/projects/{showcase.project_id}")
        expect(page.get_by_text("there is no project")).to_be_visible()
        page.goto("/admin")
        expect(page.get_by_text("only an admin may do this")).to_be_visible()


def test_log_jumps_to_its_first_error_and_filters_by_stream(
    browser: Browser, site: Service, showcase: Showcase
) -> None:
    with visitor(browser, site) as page:
        page.goto(f"/jobs/{showcase.failed_job}")
        # The end of the log of a failed job is what there is to see at first.
        page.locator(".line").first.wait_for()
        page.locator(".log-pane").evaluate("pane => pane.scrollIntoView()")
        expect(page.locator(".line .x", has_text="2 failed, 129 passed")).to_be_in_viewport()
        page.get_by_role("button", name="First error").click()
        marked = page.locator(".line.marked")
        expect(marked.locator(".x")).to_have_text(re.compile("^FAILED tests/test_count.py::test_empty_text"))
        assert page.url.endswith("#L" + marked.locator(".n").inner_text())
        marked.locator("xpath=following-sibling::*[1]").locator(".n").click(modifiers=["Shift"])
        expect(marked).to_have_count(2)
        assert re.search("#L[0-9]+-L[0-9]+$", page.url)
        # Of a log that is in the page as text, the browser's own search and copying get every line.
        assert "collected 131 items" in page.locator(".log-pane").inner_text()
        page.get_by_label("Streams").select_option("stderr")
        expect(page.locator(".line .x", has_text="FAILED")).to_have_count(0)
        raw = page.request.get(str(page.get_by_role("link", name="Raw").get_attribute("href")))
        assert b"\x1b[31mFAILED" in raw.body()


def test_waiting_jobs_show_the_reason(browser: Browser, site: Service, showcase: Showcase) -> None:
    [job] = site.admin.get("jobs", queue_name="gpu")["jobs"]
    reason = site.admin.get(f"jobs/{job['job_id']}/why")["reason"]
    with visitor(browser, site) as page:
        page.goto("/queues")
        expect(page.locator(f"#job-{job['job_id']}")).to_contain_text(reason)
        page.goto(f"/jobs/{job['job_id']}")
        expect(page.locator("#why")).to_contain_text(reason)
        page.goto(f"/runs/{showcase.active['run_id']}")
        expect(page.locator("#nodes")).to_contain_text("it waits for publish")


@pytest.fixture(scope="module")
def hostile(site: Service) -> Iterator[dict[str, str]]:
    """Return the pages of what has hostile text wherever a stranger can put it, and a megabyte of it."""
    command = (Path(__file__).parent / "workflows" / "hostile.sh").read_text()
    a_job = f"{{environment: {{TEXT: {json.dumps(HOSTILE)}}}, command: {json.dumps(command)}}}"
    # A name with control characters is refused.
    name = re.sub("[\x00-\x1f]", "", HOSTILE)
    body = f"name: {json.dumps(name)}\non: manual\njobs: {{a: {a_job}}}\n"
    source = repository(site.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": body})
    client = site.admin
    event = {
        "name": "manual",
        "branch": HOSTILE,
        "message": HOSTILE * 30,
        "actor": HOSTILE,
        "number": HOSTILE,
    }
    # What has a name takes no megabyte of it.
    for field in ("branch", "message", "actor", "number"):
        large = {"git_url": f"file://{source.path}", "event": event | {field: HOSTILE * 8000}}
        assert client.request("POST", "runs", json=large).status_code == 400
    run = start(client, source, event=event)
    job = client.submit(name=HOSTILE, description=HOSTILE, job_command=HOSTILE * 500, queue_name="gpu")
    response = client.request("POST", "tokens", json={"name": HOSTILE})
    assert response.status_code == 201, response.text
    # Names of projects and schedules have letters, digits and few signs.
    project = client.request("POST", "projects", json={"name": "eve", "git_url": "https://a.example/<b>.git"})
    assert project.status_code == 201, project.text
    address = f"projects/{project.json()['project_id']}"
    schedule = {"name": "nightly", "cron": "1 1 * * *", "workflow": HOSTILE}
    response = client.request("POST", f"{address}/schedules", json=schedule)
    assert response.status_code == 201, response.text
    run = over(client, run, _WAIT_MS / 1000)
    assert run["nodes"], run["reason"]
    yield {
        "run": f"/runs/{run['run_id']}",
        "node": f"/jobs/{run['nodes'][0]['job_id']}",
        "job": f"/jobs/{job['job_id']}",
        "project": f"/{address}",
    }
    client.cancel(job)


@pytest.mark.parametrize(
    ("page_name", "place", "count"),
    [
        ("/runs", "name, branch and message of a run", 3),
        ("/runs?branch={}", "a filter", 0),
        ("run", "name, branch, message, actor, number and file of a run; a failed test", 6),
        ("node", "failed test, summary and log of a job", 3),
        ("/jobs", "name and command of a job", 2),
        ("/queues", "name and command of a job that waits", 1),
        ("job", "name and description of a job", 2),
        ("node/artifacts/%3Cb%20onclick%3Dx%3E%E2%80%AE.txt", "name and content of an artifact", 1),
        ("node/artifacts/big.txt", "a megabyte of an artifact", 1000),
        ("project", "workflow of a schedule", 1),
        ("/account", "name of a token", 1),
        ("/nowhere/{}", "an address", 0),
    ],
)
def test_hostile_text_is_not_interpreted(
    hostile_page: Page, hostile: dict[str, str], page_name: str, place: str, count: int
) -> None:
    page = hostile_page
    name, slash, rest = page_name.partition("/")
    page.goto((hostile.get(name, "") + slash + rest).format(quote(HOSTILE)))
    main = page.locator("main")
    text = main.inner_text()
    assert text.count(MARKUP) >= count, place
    assert not set(HIDDEN) & set(text)
    elements = "img, main script, [onerror], [onclick], a[href^=javascript], a[href^=data]"
    assert page.locator(elements).count() == 0
    if "big" not in page_name:
        assert len(page.content()) < _MAX_PAGE_CHARS
    # Nothing makes it wider, and it still answers.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator(".brand").is_visible()


def test_log_and_tests_of_a_hostile_job_are_readable(hostile_page: Page, hostile: dict[str, str]) -> None:
    page = hostile_page
    page.goto(hostile["node"])
    # What was written over, and the terminal's controls, do nothing here.
    line = page.locator(".line .x", has_text="cleared")
    expect(line).to_contain_text(MARKUP)
    expect(line.locator(".f1").first).to_have_text(re.compile("^red"))
    expect(page.locator(".line .cut").first).to_be_visible()
    expect(page.locator("#test-1 h3")).to_contain_text(MARKUP)
    expect(page.locator("#test-1 .message").first).to_contain_text(MARKUP)
    assert page.locator(".prose a").count() == 0
    assert page.locator(".prose").inner_text().count(MARKUP) > 100


@pytest.fixture(scope="module")
def hostile_page(browser: Browser, site: Service) -> Iterator[Page]:
    with visitor(browser, site) as page:
        yield page


def test_running_run_is_shown_in_the_tab_and_respects_reduced_motion(
    browser: Browser, site: Service, showcase: Showcase
) -> None:
    with visitor(browser, site) as page:
        page.goto(f"/runs/{showcase.active['run_id']}")
        expect(page).to_have_title(f"● Release #{showcase.active['number']}")
        assert "icon-busy" in str(page.locator("#icon").get_attribute("href"))
        assert page.evaluate("document.getAnimations().length") == 0
        page.emulate_media(reduced_motion="no-preference")
        assert page.evaluate("document.getAnimations().length") > 0


def test_change_without_the_csrf_token_is_refused(
    browser: Browser, site: Service, showcase: Showcase
) -> None:
    with visitor(browser, site) as page:
        page.goto("/queues")
        for method, path in (
            ("POST", f"runs/{showcase.failed['run_id']}/rerun"),
            ("PUT", f"jobs/{showcase.active_job}/cancel"),
            ("POST", "tokens"),
        ):
            status = page.evaluate(
                "async ([method, path]) => (await fetch('/api/v1/' + path, {method, body: '{}', "
                "headers: {'Content-Type': 'application/json'}})).status",
                [method, path],
            )
            assert status == 403, path


def test_own_tokens_are_created_shown_once_and_revoked(browser: Browser, site: Service) -> None:
    own = site.admin.request("POST", "tokens", json={"name": "own"}).json()["token"]
    with visitor(browser, site, own) as page:
        page.goto("/account")
        page.get_by_text("Create a token").click()
        page.get_by_label("Name").fill("laptop")
        page.get_by_role("button", name="Create").first.click()
        value = page.get_by_role("region", name="Tokens").locator("output")
        expect(value).to_be_visible()
        token = value.inner_text()
        assert site.client(token).get("users/me")["username"] == "admin"
        page.reload()
        assert token not in page.content()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.goto("/account")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_secrets_and_webhooks_are_set_and_removed_by_forms(browser: Browser, site: Service) -> None:
    project = {"name": "acme/forms", "git_url": "https://git.example/acme/forms.git"}
    project_id = site.admin.request("POST", "projects", json=project).json()["project_id"]
    with visitor(browser, site) as page:
        page.goto("/admin")
        expect(page.locator("#retention + dl")).to_contain_text("10,000 jobs")
        expect(page.locator("#retention + dl")).to_contain_text("20 GiB")
        page.get_by_text("Set a secret").click()
        page.get_by_label("Name", exact=True).fill("registry:token")
        page.get_by_label("Value").fill("hunter2-hunter2")
        page.get_by_label("Projects that may use it").fill("acme/forms")
        page.get_by_role("button", name="Set", exact=True).click()
        expect(page.locator("#secret-1")).to_contain_text("for acme/forms")
        [secret] = site.admin.get("secrets")["secrets"]
        assert (secret["name"], secret["projects"]) == ("registry:token", ["acme/forms"])
        page.locator("#secret-1").get_by_role("button", name="Delete").click()
        expect(page.locator("#secret-1")).to_have_count(0)
        assert site.admin.get("secrets")["secrets"] == []

        page.goto("/account")
        page.get_by_text("Create a webhook").click()
        page.get_by_label("Address").fill("https://chat.example/hook")
        page.get_by_label("a run that succeeds again").uncheck()
        page.get_by_label("Projects of yours").fill("acme/forms")
        page.get_by_role("button", name="Create").last.click()
        expect(page.locator("#webhooks ~ details output")).to_be_visible()
        [webhook] = site.admin.get("webhooks")["webhooks"]
        assert webhook["events"] == ["failure"]
        assert webhook["project_ids"] == [project_id]
        page.locator(f"#webhook-{webhook['webhook_id']}").get_by_role("button", name="Remove").click()
        expect(page.locator(".hook")).to_have_count(0)
        assert site.admin.get("webhooks")["webhooks"] == []


def test_job_created_while_a_page_loads_is_shown(browser: Browser, site: Service) -> None:
    def submit_first(route: Route) -> None:
        late.append(site.admin.submit(name="late", queue_name="other"))
        route.continue_()

    late: list[Job] = []
    with visitor(browser, site) as page:
        page.route("**/api/v1/events*", submit_first)
        page.goto("/jobs?name=late")
        expect(page.get_by_role("link", name="late")).to_have_count(1)
    site.admin.cancel(late[0])


def test_hidden_tab_has_no_connection(browser: Browser, site: Service) -> None:
    with visitor(browser, site) as page:
        with page.expect_request("**/api/v1/events*"):
            page.goto("/runs")
        with page.expect_event("requestfailed", lambda request: "/api/v1/events" in request.url):
            set_hidden(page, True)
        with page.expect_request("**/api/v1/events*"):
            set_hidden(page, False)


def test_pages_are_readable_without_scripts(browser: Browser, site: Service, showcase: Showcase) -> None:
    with visitor(browser, site, scripts=False) as page:
        page.goto("/runs")
        page.locator(f"[href='/runs/{showcase.failed['run_id']}']").click()
        expect(page.get_by_text("AssertionError: assert 1 == 0").first).to_be_visible()
        expect(page.locator("svg a.node")).to_have_count(7)
        page.get_by_role("link", name="test_empty_text").click()
        expect(page.locator(".log-text")).to_contain_text("2 failed, 129 passed")
        # Buttons that would do nothing are not site.
        expect(page.locator("[data-call]:visible")).to_have_count(0)
        page.goto("/runs?status=failed")
        expect(page.locator(".row.run .state.bad").first).to_be_visible()


def test_axe_reports_no_problem_in_both_themes_and_widths(
    browser: Browser, site: Service, showcase: Showcase
) -> None:
    violations = []
    # Its script is half a megabyte, and is given to each page once.
    script, axe = Axe().axe_script, Axe(axe_script="0")
    with visitor(browser, site) as page, visitor(browser, site, None) as signed_out:
        for visited, address in (
            *((page, address) for address in addresses(showcase).values()),
            (signed_out, "/sign-in"),
            (signed_out, "/sign-in?invitation=x"),
        ):
            visited.goto(address)
            if "/jobs/" in address and "artifacts" not in address:
                visited.locator(".line").first.wait_for()
            visited.evaluate("document.querySelectorAll('details').forEach(item => { item.open = true; })")
            visited.evaluate(script)
            for width, theme in itertools.product(WIDTHS.values(), _THEMES):
                visited.set_viewport_size({"width": width, "height": 800})
                visited.emulate_media(color_scheme=theme, reduced_motion="reduce")
                results = axe.run(visited)
                violations += [
                    (address, width, theme, item["id"], [node["html"][:150] for node in item["nodes"][:3]])
                    for item in results.response["violations"]
                ]
                # Nothing is wider than the window, so that nobody has to scroll sideways.
                assert visited.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
    assert violations == []
