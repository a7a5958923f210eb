"""Fine-tuning on this machine: `make demo-finetune`. Real texts, a real small model, two processes that train together.

LoRA adapters of SmolLM2 learn the style of the docstrings in Python's library, with two seeds; then the base model and
the best adapter continue the same prompt. Run it again and it resumes; if it was finished, it does nothing.
"""

import os
import sys
from pathlib import Path

from flows.campaign import CampaignSummary
from flows.command_line import main as run_flow
from flows.demo import say
from flows.fine_tuning import FineTuning, fine_tuning
from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.campaign.sweep import download_best, ranking
from gpu_jobs.workloads.text.demo import DOCSTRINGS, make_demo_texts

_FOLDER = Path("demo")
_PROMPT = "shutil.copyfile\n"
_ARGUMENTS = {
    "--texts.text": "{id}\n{text}",
    "--texts.block": "64",
    "--texts.validation-share": "0.02",
    "--params.steps": "50",
    "--params.batch": "4",
    "--params.learning-rate": "2e-3",
    "--params.warmup-steps": "5",
    "--params.eval-steps": "25",
    "--params.save-steps": "25",
    "--params.prompt": _PROMPT,
    "--grid.seed": "[0, 1]",
    "--max-workers": "1",
}


def main() -> int:
    """Write the texts, prepare them, train twice, and show the results."""
    texts = (_FOLDER / "texts").absolute()
    make_demo_texts(texts)
    os.environ.setdefault("FANFOLD_GANG_SIZE", "2")
    found = list[CampaignSummary]()

    def train(parameters: FineTuning) -> CampaignSummary:
        found.append(fine_tuning(parameters))
        return found[-1]

    where = ["--dataset", str(texts / DOCSTRINGS), "--store-root", str((_FOLDER / "store").absolute())]
    asked = [word for pair in _ARGUMENTS.items() for word in pair]
    if code := run_flow(train, FineTuning, [*where, *asked]):
        return code
    _show(Campaign.open(found[0].campaign))
    say(f"\nreport:  {found[0].report}")
    return 0


def _show(campaign: Campaign) -> None:
    rows = ranking(campaign)
    say("\nValidation loss, the best first")
    for row in rows.iter_rows(named=True):
        before, after = row["eval_loss_before"], row["eval_loss"]
        words = f"{before:.3f} -> {after:.3f}, {1 - after / before:.0%} less, after {row['steps']} steps"
        say(f"  {row['item']}: {words} of {row['processes']} processes")
    best = rows.row(0, named=True)
    say(f"\nThe prompt {_PROMPT!r}, continued")
    say(f"  before: {best['sample_before']!r}")
    say(f"  after:  {best['sample_after']!r}")
    say(f"\nbest adapter: {download_best(campaign, _FOLDER / 'best-adapter')}")


if __name__ == "__main__":
    sys.exit(main())
