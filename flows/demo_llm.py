"""Batch inference on this machine: `make demo-llm`. Real texts, real pretrained models, two GPU workers.

A small chat model explains functions of Python's library in one sentence each; an encoder finds docstrings with similar
meanings. Run it again and both campaigns resume; if they were finished, it does nothing.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl

from flows.batch_inference import BatchInference, batch_inference
from flows.campaign import CampaignSummary
from flows.command_line import main as run_flow
from flows.demo import say
from gpu_jobs.campaign.campaign import Campaign
from gpu_jobs.workloads.text.demo import DOCSTRINGS, QUESTIONS, make_demo_texts

_FOLDER = Path("demo")
_PROMPT = "{id}: {text}\n\nIn one short sentence: what is {id} for?"
_SYSTEM = "You explain functions of the Python programming language in plain words."
_SHOWN = ("shutil.copyfile", "statistics.median", "html.escape", "tempfile.mkdtemp", "threading.Lock", "shlex.quote")
_NUM_NEIGHBOURS = 3


def main() -> int:
    """Write the texts, run both campaigns, and show the results."""
    texts = (_FOLDER / "texts").absolute()
    make_demo_texts(texts)
    found = list[CampaignSummary]()

    def infer(parameters: BatchInference) -> CampaignSummary:
        found.append(batch_inference(parameters))
        return found[-1]

    where = ["--store-root", str((_FOLDER / "store").absolute()), "--max-workers", "2"]
    answer = ["--dataset", str(texts / QUESTIONS), "--params.text", _PROMPT, "--params.max-new-tokens", "40"]
    answer += ["--params.system", _SYSTEM]
    embed = ["--dataset", str(texts / DOCSTRINGS), "--params.task", "embed"]
    for asked in (answer, embed):
        if code := run_flow(infer, BatchInference, [*where, *asked]):
            return code
    answers, vectors = (Campaign.open(summary.campaign).outputs().collect() for summary in found)
    _show_answers(answers)
    _show_neighbours(vectors)
    for summary in found:
        say(f"\noutputs: {summary.campaign}/outputs/\nreport:  {summary.report}")
    return 0


def _show_answers(answers: pl.DataFrame) -> None:
    say("\nAnswers of SmolLM2-135M-Instruct")
    for item, text, finish in answers.select("item", "text", "finish_reason").iter_rows():
        say(f"  {item}: {' '.join(text.split())}{'…' if finish == 'length' else ''}")


def _show_neighbours(vectors: pl.DataFrame) -> None:
    say("\nDocstrings that mean nearly the same, by all-MiniLM-L6-v2")
    names = vectors["item"].to_list()
    matrix = np.array(vectors["embedding"].to_list(), dtype=np.float32)
    for name in filter(names.__contains__, _SHOWN):
        cosines = matrix @ matrix[names.index(name)]
        nearest = [place for place in np.argsort(-cosines) if names[place] != name][:_NUM_NEIGHBOURS]
        say(f"  {name}: {', '.join(f'{names[place]} {cosines[place]:.2f}' for place in nearest)}")


if __name__ == "__main__":
    sys.exit(main())
