"""Where dollars went: every billed second is in one class, every dollar too."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_jobs.money import by_class

CLASSES = ("starting", "working", "idle")
SECONDS = st.floats(min_value=0, max_value=1e6, allow_subnormal=False)
JOB = st.fixed_dictionaries(
    {"usd": st.floats(min_value=0, max_value=1e4), "unseen": SECONDS, **{f"{name}_s": SECONDS for name in CLASSES}}
)


@given(st.lists(JOB, max_size=5))
def test_classes_add_up_to_what_was_billed(jobs):
    """Whatever GPU workers say of their seconds, the classes' seconds and dollars are those of the bill."""
    for job in jobs:
        job["billed_s"] = sum(job[f"{name}_s"] for name in CLASSES) + job.pop("unseen")
    schema = {"usd": pl.Float64, "billed_s": pl.Float64, **{f"{name}_s": pl.Float64 for name in CLASSES}}

    found = by_class(pl.DataFrame(jobs, schema=schema), CLASSES)

    assert found["class"].to_list() == [*CLASSES, "unseen"]
    assert found["seconds"].sum() == pytest.approx(sum(job["billed_s"] for job in jobs))
    paid = sum(job["usd"] for job in jobs if job["billed_s"] > 0)
    assert found["usd"].sum() == pytest.approx(paid, abs=1e-6)
    assert found["share"].sum() == pytest.approx(1 if found["seconds"].sum() else 0)


def test_dollars_follow_each_gpu_jobs_own_seconds():
    """An idle dear GPU job and a busy cheap one are not averaged."""
    dear = {"usd": 9.0, "billed_s": 10.0, "starting_s": 0.0, "working_s": 0.0, "idle_s": 10.0}
    cheap = {"usd": 1.0, "billed_s": 10.0, "starting_s": 0.0, "working_s": 5.0, "idle_s": 0.0}

    found = by_class(pl.DataFrame([dear, cheap]), CLASSES)

    usd = dict(zip(found["class"], found["usd"], strict=True))
    assert usd == pytest.approx({"starting": 0.0, "working": 0.5, "idle": 9.0, "unseen": 0.5})
