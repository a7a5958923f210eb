"""What docs/run-it-on-modal.md tells a user to type fits the code."""

import re

import pytest
from pydantic_settings import CliApp

from flows.video_analysis import VideoAnalysis
from gpu_jobs.emulators.rehearse import emulators
from gpu_jobs.platforms.modal.offers import offers_in
from gpu_jobs.platforms.modal.settings import ModalSettings
from tests.project import ROOT

PAGE = (ROOT / "docs" / "run-it-on-modal.md").read_text()
BLOCKS = [block.replace("\\\n", " ") for block in re.findall(r"^```\w*\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)]
LINES = [line for block in BLOCKS for line in block.splitlines()]


def test_every_setting_of_the_page_is_one():
    """In full, or with its beginning left out in a list of several."""
    named = {name.lower() for name in re.findall(r"FANFOLD_MODAL_(\w+)", PAGE)} | {"env", "app"}

    assert named <= set(ModalSettings.model_fields)


def test_what_the_page_exports_is_understood(monkeypatch):
    """Lists in JSON; the GPUs are ones that Modal has."""
    for name, value in re.findall(r"^export (FANFOLD_\w+)='?(.*?)'?$", "\n".join(LINES), re.MULTILINE):
        monkeypatch.setenv(name, value)

    settings = ModalSettings()

    assert settings.secrets == ("fanfold-bucket",)
    assert [(offer.gpu, offer.num_gpus) for offer in offers_in(settings)] == [
        ("L4", 1),
        ("A100-80GB", 4),
        ("H100,A100-80GB", 1),
    ]
    assert settings.max_containers == 8


@pytest.mark.parametrize("start", ["fanfold rehearse", "python -m flows.video_analysis"])
def test_the_commands_of_the_page_are_understood(start):
    """Flags and platforms, as the flow and the rehearsal take them."""
    (line,) = [line for line in LINES if line.startswith(start)]
    words = line.replace("$BUCKET", "my-fanfold").split()
    flags = words[words.index("flows.video_analysis") + 1 :]

    asked = CliApp.run(VideoAnalysis, cli_args=flags)

    assert asked.where.platforms == ["modal"]
    if "rehearse" in words:
        assert set(words[words.index("--platforms") + 1].split(",")) <= set(emulators())
