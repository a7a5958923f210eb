"""Prefect's page in a real browser: what a test reads, types and clicks. The selectors are Prefect's own."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from playwright.sync_api import Error, Locator, Page, sync_playwright

SLOW_MS = 60_000
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def open_browser() -> Iterator[Page]:
    """Chromium with a fresh profile, and one page of it."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert chromium, "needs Chromium: `make chromium`"
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium, args=_ARGUMENTS, viewport={"width": 1400, "height": 1000}
        )
        context.set_default_timeout(SLOW_MS)
        yield context.pages[0]
        context.close()


class PrefectPages:
    """The pages of one Prefect server; every screenshot is kept."""

    def __init__(self, page: Page, url: str, pictures: Path) -> None:
        self._page = page
        self._url = url
        self._pictures = pictures

    def open_form(self, deployment: object) -> None:
        self._page.goto(f"{self._url}/deployments/deployment/{deployment}/run")
        self.see("Advanced (Optional)")

    def fill(self, title: str, value: str) -> None:
        """Type into the form's field of this title."""
        self._field(title).fill(value)

    def value(self, title: str) -> str:
        return self._field(title).input_value()

    def titles(self) -> list[str]:
        """All titles in the form, from top to bottom."""
        found = self._page.locator("form .schema-form-property label").all_inner_texts()
        return [text.removesuffix(" (Optional)").strip() for text in found]

    def submit(self) -> None:
        self._page.get_by_role("button", name="Submit").click()

    def submit_and_leave(self) -> None:
        """Until the page of the form is left: a click into a form that is still moving is lost."""
        for _ in range(5):
            self.submit()
            with suppress(Error):
                return self._page.wait_for_url(lambda url: not url.endswith("/run"), timeout=10_000)
        raise AssertionError("the form does not submit")

    def cancel_run(self, run: object) -> None:
        """Cancel a flow run by the menu of its page, and confirm."""
        self._page.goto(f"{self._url}/runs/flow-run/{run}")
        self._page.get_by_role("button", name="Cancel").first.click()
        self._page.get_by_role("button", name="Confirm").click()

    def see(self, text: str) -> None:
        """Wait until the page shows a text."""
        self._page.get_by_text(text).first.wait_for()

    def open_run(self, run: object) -> None:
        self._page.goto(f"{self._url}/runs/flow-run/{run}")
        self._page.get_by_text("Artifacts", exact=True).last.click()

    def open_artifact(self, artifact: object) -> None:
        self._page.goto(f"{self._url}/artifacts/artifact/{artifact}")
        self.see("Show raw data")

    def open_file(self, path: str) -> None:
        self._page.goto(Path(path).as_uri())

    @property
    def text(self) -> str:
        return self._page.inner_text("body")

    def picture_sizes(self) -> list[tuple[int, int]]:
        """(width, height) of the pictures that the page has really drawn."""
        sizes = self._page.locator("img").evaluate_all("all => all.map(one => [one.naturalWidth, one.naturalHeight])")
        return [(width, height) for width, height in sizes if width]

    def keep(self, name: str, height: int = 1000) -> None:
        """Take a screenshot, of a page as high as it takes: Prefect's scroll inside."""
        self._page.set_viewport_size({"width": 1400, "height": height})
        self._page.wait_for_timeout(1000)  # animations
        self._page.screenshot(path=self._pictures / f"{name}.png")
        self._page.set_viewport_size({"width": 1400, "height": 1000})

    def _field(self, title: str) -> Locator:
        label = self._page.locator("label", has_text=re.compile(rf"^\s*{re.escape(title)}( \(Optional\))?\s*$")).first
        box = label.locator("xpath=ancestor::div[contains(@class, 'schema-form-property')][1]")
        return box.locator("textarea, input").first
