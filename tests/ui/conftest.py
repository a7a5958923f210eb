"""A real server with everything deployed, a Prefect worker and a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PrefectPages, open_browser
from prefect.settings import PREFECT_API_URL, temporary_settings
from real_prefect import Prefect, free_port, gpu_workers

PICTURES = Path(__file__).parents[2] / "build" / "ui"


@pytest.fixture
def served(tmp_path) -> Iterator[Prefect]:
    prefect = Prefect(tmp_path, free_port())
    prefect.copy_project()
    try:
        prefect.start_server()
        prefect.run("flows.setup")
        prefect.run("prefect", "--no-prompt", "deploy", "--all")
        prefect.start_worker()
        with temporary_settings({PREFECT_API_URL: prefect.url}):
            yield prefect
    finally:
        prefect.close()
        for process in gpu_workers(tmp_path / "store"):
            process.kill()


@pytest.fixture
def pages(served) -> Iterator[PrefectPages]:
    """The browser; screenshots go to build/ui/."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with open_browser() as page:
        yield PrefectPages(page, served.url.removesuffix("/api"), PICTURES)
