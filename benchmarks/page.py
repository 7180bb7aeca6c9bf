"""The pages in a browser: the first one with many jobs, a large log that is over, and one that grows fast."""

import contextlib
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import million, runs
from benchmarks.figures import Figure, alone
from benchmarks.service import Service, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_LINE_BYTES = 100
_LINES_PER_S = 5000
_NODES = 10

# Copies of a run with its nodes and jobs, each a second older than the one before.
_NUMBERS = "WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < :copies)"
_RUN_ID = "printf('01900000-0000-7000-8000-%012x', i)"
_JOB_ID = f"printf('01910000-0000-7000-8000-%012x', i * {_NODES} + {{position}})"
_OLDER = {name: f"{name} - i * 1000" for name in ("created_at_ms", "updated_at_ms", "completed_at_ms")}
_COPIED = {
    "job": _OLDER
    | {
        "run_id": _RUN_ID,
        "job_id": _JOB_ID.format(position="(SELECT position FROM node WHERE node.job_id = job.job_id)"),
        "status": "CASE WHEN i % 12 = 0 THEN 'failed' ELSE status END",
    },
    "node": {"run_id": _RUN_ID, "job_id": _JOB_ID.format(position="position")},
    "run": _OLDER
    | {
        "run_id": _RUN_ID,
        "number": "number + i",
        "turn": "i",
        "status": "CASE WHEN i % 12 = 0 THEN 'failed' ELSE status END",
    },
}

# When the page and all that it loads were there, in milliseconds after the start of the navigation.
_COMPLETE = "() => performance.getEntriesByType('navigation')[0].loadEventEnd"
# Each resolves to the milliseconds until the page shows what was asked for.
_FIRST_SCREEN = """() => new Promise(done => {
    const look = () => document.querySelector('.line .x')?.textContent
        ? done(performance.now()) : requestAnimationFrame(look);
    look();
})"""
_TO_END = """lines => new Promise(done => {
    const began = performance.now();
    const pane = document.querySelector('.log-pane');
    pane.dispatchEvent(new KeyboardEvent('keydown', {key: 'End', bubbles: true}));
    const look = () => {
        const last = document.querySelector('.log-rows').lastElementChild;
        if (last?.line === lines - 1 && last.querySelector('.x').textContent) done(performance.now() - began);
        else requestAnimationFrame(look);
    };
    look();
})"""
_SEARCH = """text => new Promise(done => {
    const began = performance.now();
    const field = document.querySelector('.log-search');
    field.value = text;
    field.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}));
    const look = () => document.querySelector('.line.now .x')?.textContent.includes(text)
        ? done(performance.now() - began) : requestAnimationFrame(look);
    look();
})"""
_SCROLL = """seconds => new Promise(done => {
    const pane = document.querySelector('.log-pane');
    pane.scrollTop = 0;
    const began = performance.now();
    const gaps = [];
    let before = began;
    const step = now => {
        gaps.push(now - before);
        before = now;
        pane.scrollTop += 60;
        if (now - began < seconds * 1000) requestAnimationFrame(step);
        else done(Math.max(...gaps.slice(2)));
    };
    requestAnimationFrame(step);
})"""
# How many lines are there that the page does not show, at the worst.
_BEHIND = """([url, seconds]) => new Promise(async done => {
    const began = performance.now();
    let most = 0;
    while (performance.now() - began < seconds * 1000) {
        const shown = (document.querySelector('.log-rows').lastElementChild?.line ?? -1) + 1;
        const lines = Number((await fetch(url)).headers.get('X-Log-Lines'));
        if (shown > 0) most = Math.max(most, lines - shown);
        await new Promise(resolve => setTimeout(resolve, 50));
    }
    done(most);
})"""


def first_page(image: str, *, quick: bool) -> list[Figure]:
    """Measure pages with 100,000 jobs of 10,000 runs, in a browser that has nothing of them yet."""
    copies = 500 if quick else 10_000
    text = "".join(f'  j{number}: {{image: "{image}", command: "true"}}\n' for number in range(_NODES))
    options = ("--concurrency", "4", "--keep-jobs", "0")
    figures = []
    with (
        runs.project(text) as path,
        serving(*options, "--source-root", str(path)) as service,
        _browser() as browser,
    ):
        run_id = runs.run(service.client(), path)
        _multiply(service.data_dir / "reactorcide.db", run_id, copies)
        for address in ("/runs", "/runs?status=failed", "/jobs", f"/runs/{run_id}"):
            times = []
            for _ in range(2 if quick else 10):
                with contextlib.closing(browser.new_context(base_url=service.url)) as context:
                    context.request.post("/sign-in", form={"token": service.token})
                    page = context.new_page()
                    page.goto(address, wait_until="load")
                    times.append(page.evaluate(_COMPLETE))
            name = address.replace(run_id, "…")
            figures.append(
                alone(f"{name} with {copies * _NODES:,} jobs, complete", times, unit="ms", mark=300)
            )
    return figures


def _multiply(database: Path, run_id: str, copies: int) -> None:
    """Copy a run, with its nodes and jobs, in the database of a service."""
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for table, changed in _COPIED.items():
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            values = ", ".join(changed.get(name, name) for name in columns)
            connection.execute(
                f"{_NUMBERS} INSERT INTO {table} ({', '.join(columns)}) "  # noqa: S608  # our own text
                f"SELECT {values} FROM {table}, numbers WHERE run_id = :run_id",
                {"copies": copies, "run_id": run_id},
            )
        for statement in million.COUNT:
            connection.execute(statement)


def large_log(image: str, *, quick: bool) -> list[Figure]:
    """Measure a log of 100 MB and 1,000,000 lines in Chromium, as a person who opens it sees it."""
    lines = 50_000 if quick else 1_000_000
    command = f"awk 'BEGIN {{ for (i = 1; i <= {lines}; i++) printf \"%0{_LINE_BYTES - 1}d\\n\", i }}'"
    rounds = 1 if quick else 5
    first, end, search, gaps, memory = [], [], [], [], []
    with serving("--concurrency", "1") as service, _browser() as browser:
        job_id = _finished(service, image, command)
        for _ in range(rounds):
            with _signed_in(browser, service) as page:
                page.goto(f"{service.url}/jobs/{job_id}", wait_until="commit")
                first.append(page.evaluate(_FIRST_SCREEN))
                end.append(page.evaluate(_TO_END, lines))
                search.append(page.evaluate(_SEARCH, f"{lines:0{_LINE_BYTES - 1}}"))
                gaps.append(page.evaluate(_SCROLL, 1 if quick else 3))
                memory.append(_renderer_mb(browser))
    size = f"{lines * _LINE_BYTES / 1e6:.0f} MB"
    return [
        alone(f"a log of {size} in the browser: first screen", first, unit="ms", mark=300),
        alone("  jump to its end", end, unit="ms", mark=500),
        alone("  search for its last line", search, unit="ms", mark=1000),
        alone("  longest frame while scrolling", gaps, unit="ms", mark=50),
        alone("  memory of the tab", memory, unit="MB", mark=150),
    ]


def live_log(image: str, *, quick: bool) -> Figure:
    """Measure how far the page is behind a log of 5,000 lines a second, at the worst, in seconds."""
    seconds = 3 if quick else 10
    # A tenth of them ten times a second.
    times = 10 * (seconds + 5)
    command = f"n=0; while [ $n -lt {times} ]; do n=$((n+1)); seq {_LINES_PER_S // 10}; sleep 0.1; done"
    with (
        serving("--concurrency", "1") as service,
        _browser() as browser,
        _signed_in(browser, service) as page,
    ):
        client = service.client()
        job_id = client.submit(image, command)
        client.wait(job_id, for_status="running")
        page.goto(f"{service.url}/jobs/{job_id}", wait_until="commit")
        page.evaluate(_FIRST_SCREEN)
        behind = page.evaluate(_BEHIND, [f"/api/v1/jobs/{job_id}/logs?lines=0", seconds])
    return alone("a live log of 5,000 lines/s: behind", [behind / _LINES_PER_S], unit="s", mark=1)


def _finished(service: Service, image: str, command: str) -> str:
    client = service.client()
    job_id = client.submit(image, command)
    client.wait(job_id)
    return job_id


@contextlib.contextmanager
def _browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        raise RuntimeError("chromium is not installed; the benchmark of the web page needs it")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@contextlib.contextmanager
def _signed_in(browser: "Browser", service: Service) -> "Iterator[Page]":
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"{service.url}/sign-in")
    page.get_by_label("Token").fill(service.token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/runs")
    yield page
    context.close()


def _renderer_mb(browser: "Browser") -> float:
    """Return the memory of the largest renderer; what it shares with others counts by its share."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    sizes = [0.0]
    for process in processes:
        if process["type"] == "renderer":
            text = Path(f"/proc/{process['id']}/smaps_rollup").read_text()
            match = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
            sizes.append(0 if match is None else int(match[1]) / 1000)
    return max(sizes)
