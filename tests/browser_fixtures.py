"""Chromium for tests: a page of 1280 by 800, logged in, that remembers what went wrong on it.

Screenshots go to `test-artefacts/` (not under version control).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from label_studio_config.users import UserInfo
from tests.label_studio_fixtures import LabelStudioForTests

ARTEFACTS = Path(__file__).parents[1] / "test-artefacts"
WINDOW = {"width": 1280, "height": 800}
OURS = "/planktrait/"
"""Addresses of our own pages and files; Label Studio's console is noisy."""
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_CANVAS = ".konvajs-content canvas"


@dataclass
class Visit:
    """One person's window on a Label Studio."""

    page: Page
    server: LabelStudioForTests
    exceptions: list[str] = field(default_factory=list)
    our_errors: list[str] = field(default_factory=list)

    def log_in(self, person: UserInfo | None = None) -> None:
        """Through the login form, as a person does; by default the first user."""
        secrets = self.server.home.secrets
        self.page.goto(f"{self.server.url}/user/login/")
        self.page.fill("input[name=email]", person.email if person else secrets.user_email)
        password = person.password if person else secrets.user_password
        self.page.fill("input[name=password]", password or "")
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda url: "/user/login" not in url)

    def open_data_manager(self, project_id: int, tab_id: int | None = None) -> None:
        """The project's images."""
        tab = f"?tab={tab_id}" if tab_id else ""
        self.page.goto(f"{self.server.url}/projects/{project_id}/data{tab}")

    def open_task(self, project_id: int, task_id: int) -> None:
        """A task in the editor, beside the list of images; waits for the image."""
        self.page.goto(f"{self.server.url}/projects/{project_id}/data?task={task_id}")
        self.await_image()

    def open_label_stream(self, project_id: int) -> None:
        """The next task to be judged, in the editor on its own; waits for the image."""
        self.page.goto(f"{self.server.url}/projects/{project_id}/data?labeling=1")
        self.await_image()

    def await_image(self) -> None:
        """Until the editor has drawn the image."""
        self.page.wait_for_selector(_CANVAS, timeout=60_000)
        self.page.wait_for_function(
            "() => document.querySelector('.lsf-image img')?.naturalWidth > 0", timeout=30_000
        )

    def darken(self) -> None:
        """With Label Studio's own switch in the header."""
        scheme = "document.documentElement.dataset.colorScheme"
        for _ in range(3):
            if self.page.evaluate(scheme) == "dark":
                return
            self.page.get_by_role("button", name=re.compile("^(Auto|Light)$")).click()
            self.page.wait_for_timeout(300)
        assert self.page.evaluate(scheme) == "dark"

    def act_on(self, row: int | None, action: str) -> None:
        """An action of the Data Manager on the task in a row of the tab, or on all of them."""
        self.page.wait_for_selector(".lsf-select-row")
        boxes = ".lsf-table__select-all" if row is None else ".lsf-select-row"
        # The real box lies under a drawn one.
        box = self.page.locator(f"{boxes} input[type=checkbox]").nth(row or 0)
        box.click(force=True)
        buttons = self.page.get_by_role("button")
        buttons.filter(has_text=re.compile(r"^\s*\d+ Tasks?\s*$")).click()
        self.page.get_by_text(action, exact=True).click()

    def choose_in_dialog(self, option: str) -> None:
        """An option of the list in the dialog of an action."""
        modal = self.page.locator(".lsf-modal-ls__content, .lsf-modal__content").last
        modal.locator("select").wait_for(state="attached")
        # The real list lies under a drawn one.
        modal.get_by_role("combobox").or_(modal.locator("button[aria-haspopup]")).first.click()
        self.page.get_by_role("option", name=option).click()

    def confirm_action(self) -> None:
        """OK in the dialog of an action of the Data Manager."""
        self.page.locator("button", has_text=re.compile(r"^\s*OK\s*$")).click()

    def keep_screenshot(self, name: str) -> Path:
        """Save the window to `test-artefacts/<name>.png`."""
        ARTEFACTS.mkdir(exist_ok=True)
        path = ARTEFACTS / f"{name}.png"
        self.page.screenshot(path=path, animations="disabled")
        return path

    def check(self) -> None:
        """Fail on an exception on any page, or an error in the console about ours."""
        assert not self.exceptions, self.exceptions
        assert not self.our_errors, self.our_errors

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type != "error":
            return
        place = message.location.get("url", "") if message.location else ""
        if OURS in place or OURS in self.page.url:
            self.our_errors.append(f"{self.page.url}: {message.text} ({place})")


def chromium_path() -> str | None:
    """`$PLANKTRAIT_CHROMIUM`, or Chromium or Chrome on the path."""
    named = [os.environ.get("PLANKTRAIT_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    return next((found for name in named if name and (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium on this machine: install it, or set PLANKTRAIT_CHROMIUM")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield opened
        opened.close()


@contextmanager
def visiting(
    browser: Browser, server: LabelStudioForTests, person: UserInfo | None = None
) -> Iterator[Visit]:
    """A fresh window, logged in as a person, by default the first user.

    A screenshot is kept when the test fails in it.
    """
    context = browser.new_context(viewport=WINDOW)  # type: ignore[arg-type]
    page = context.new_page()
    visit = Visit(page, server)
    page.on("console", visit._hear)
    page.on("pageerror", lambda error: visit.exceptions.append(f"{page.url}: {error}"))
    try:
        visit.log_in(person)
        yield visit
        visit.check()
    except BaseException:
        visit.keep_screenshot("failure")
        raise
    finally:
        context.close()
