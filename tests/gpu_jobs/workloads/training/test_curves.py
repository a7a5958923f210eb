"""What trainings measure, on its way to people."""

import io
import json

import polars as pl
import pytest

from gpu_jobs.ledger import keys
from gpu_jobs.report.trainings import trainings
from gpu_jobs.telemetry.training_curves import Curves
from gpu_jobs.testing import MemoryStore
from gpu_jobs.workloads.training.metrics import METRIC_COLUMNS, MetricsReporter
from tasks.curves import sparkline


class FakeSession:
    index = 3

    def __init__(self):
        self.store = MemoryStore()
        self.reported = []

    def report(self, doing, *, checkpoint=False):
        self.reported.append(doing)


def write(out, *rows):
    with (out / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"total": 10, **row}) + "\n" for row in rows)


def test_metrics_are_reported_once_and_kept_in_the_store(tmp_path):
    """A line that is still being written waits."""
    session = FakeSession()
    metrics = MetricsReporter(tmp_path, session)
    metrics.report()
    write(tmp_path, {"step": 0, "eval_loss": 3.0}, {"step": 1, "loss": 2.5, "tokens_per_s": 1234.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2')
    metrics.report()
    metrics.report()
    metrics.flush()

    assert session.reported == ["step 1 of 10, loss 2.500, validation 3.000, 1,234 tokens/s"]
    assert Curves(session.store).look()[3].select("step", "loss", "eval_loss").rows() == [
        (0, None, 3.0),
        (1, 2.5, None),
    ]


def test_a_step_done_again_counts_once_by_its_last_measurement():
    """An attempt that went on from an older checkpoint measures some steps again."""
    store = MemoryStore()
    for number, losses in enumerate(({1: 3.0, 2: 2.0, 3: 1.0}, {2: 2.1, 3: 1.1, 4: 0.9})):
        frame = pl.DataFrame([{"step": step, "loss": loss} for step, loss in losses.items()], schema=METRIC_COLUMNS)
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        store.create(keys.metrics(0, 3 + number, str(number)), buffer.getvalue())

    assert Curves(store).look()[0]["loss"].to_list() == [3.0, 2.1, 1.1, 0.9]


@pytest.mark.parametrize(
    ("values", "line"),
    [([], ""), ([1.0], "▁"), ([3.0, 2.0, 1.0], "█▅▁"), ([1.0, 1.0, 2.0, 2.0], "▁█")],
)
def test_a_curve_as_a_line_of_bars(values, line):
    assert sparkline(values, width=3 if len(values) < 4 else 2) == line


def test_the_report_draws_each_training_and_escapes_its_name():
    row = {
        "item": "<b>",
        "rank": 1,
        "eval_loss": 1.5,
        "eval_loss_before": 3.0,
        "steps": 2,
        "stopped_early": True,
        "tokens": 640,
        "seconds": 12.0,
        "model": "models/0.abc",
        "sample_before": "x",
        "sample_after": "y",
        "curve": [{"step": 0, "loss": None, "eval_loss": 3.0}, {"step": 2, "loss": 1.0, "eval_loss": 1.5}],
    }

    page = trainings(pl.DataFrame([row]))

    assert "&lt;b&gt;" in page
    assert "-50.0%" in page
    assert page.count("<circle") == 2
    assert page.count("<polyline") == 1
