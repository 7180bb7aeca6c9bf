"""Write a picture of every page, light and dark, wide and narrow: ``make screenshots``."""

import sys
import tempfile
from pathlib import Path

import docker
from docker.utils import kwargs_from_env
from playwright.sync_api import Browser, sync_playwright

from tests.browser.showcase import Showcase, fill
from tests.browser.support import launch, visitor
from tests.support.image import build_images
from tests.support.service import Service

WIDTHS = {"wide": 1280, "narrow": 390}


def addresses(showcase: Showcase) -> dict[str, str]:
    """Return the address of every page by its name."""
    big = {} if showcase.big is None else {"run-large": f"/runs/{showcase.big['run_id']}"}
    return big | {
        "runs": "/runs",
        "runs-empty": "/runs?branch=none",
        "run-failed": f"/runs/{showcase.failed['run_id']}",
        "run-passed": f"/runs/{showcase.passed['run_id']}",
        "run-active": f"/runs/{showcase.active['run_id']}",
        "job-failed": f"/jobs/{showcase.failed_job}",
        "job-active": f"/jobs/{showcase.active_job}",
        "artifact": f"/jobs/{showcase.failed_job}/artifacts/junit.xml",
        "jobs": "/jobs",
        "queues": "/queues",
        "workers": "/workers",
        "projects": "/projects",
        "project": f"/projects/{showcase.project_id}",
        "account": "/account",
        "admin": "/admin",
        "not-found": "/nowhere",
    }


def write(browser: Browser, service: Service, showcase: Showcase, directory: Path) -> None:
    """Write the pictures."""
    for width_name, width in WIDTHS.items():
        for dark in (False, True):
            suffix = f"{width_name}-{'dark' if dark else 'light'}.png"
            with visitor(browser, service, None, width=width, dark=dark) as page:
                page.goto("/sign-in")
                page.screenshot(path=directory / f"sign-in-{suffix}")
            with visitor(browser, service, width=width, dark=dark) as page:
                for name, address in addresses(showcase).items():
                    page.goto(address)
                    if name.startswith("job-"):
                        page.locator(".line").first.wait_for()
                    page.screenshot(path=directory / f"{name}-{suffix}", full_page=True)


def main() -> None:
    """Start a service of its own, fill it, and write the pictures to the directory of the first argument."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    engine = docker.APIClient(**kwargs_from_env(), version="auto", timeout=30)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        image = build_images(engine).default
        service = Service(Path(home), image, concurrency=3, cancel_grace=1, queue="default")
        service.start()
        try:
            showcase = fill(service, service.admin, with_big=True)
            write(launch(playwright), service, showcase, directory)
        finally:
            service.admin.request("POST", f"runs/{showcase.active['run_id']}/cancel")
            service.stop()


if __name__ == "__main__":
    main()
