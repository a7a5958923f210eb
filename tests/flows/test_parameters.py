"""What a person may ask for."""

from copy import deepcopy
from datetime import UTC, datetime
from typing import get_args

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validation
from pydantic import BaseModel, ValidationError

from flows.batch_inference import BatchInference, batch_inference
from flows.fine_tuning import FineTuning, Grid, Texts
from flows.parameters import Advanced, Limits, Where
from flows.video_analysis import VideoAnalysis, video_analysis
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.workloads.text.encode import ClassifyParams, EmbedParams
from gpu_jobs.workloads.text.generate import GenerateParams
from gpu_jobs.workloads.text.openai_batch import OpenAIBatchParams
from gpu_jobs.workloads.training.prepare import PrepareParams
from gpu_jobs.workloads.training.settings import TrainingParams
from gpu_jobs.workloads.video.workload import VideoParams
from tests.flows.small_flows import NoopCampaign, in_sections

SCHEMA = parameter_schema(video_analysis).model_dump_for_openapi()
"""What Prefect keeps of the flow: the form is made from it, and submissions are checked against it."""
ALL_PLATFORMS = deepcopy(SCHEMA)
ALL_PLATFORMS["definitions"]["Where"]["properties"]["platforms"]["items"]["enum"] = ["local", "modal"]
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_defaults_are_the_librarys():
    """But for the canary: flows may cost money, so one goes first."""
    assert NoopCampaign(dataset="x").policy == Policy(is_canary_first=True)


def test_a_deadline_without_a_zone_is_utc():
    """A form or a shell has no zone; another zone is turned into UTC."""
    assert Limits(deadline="2027-01-01T10:00").deadline == datetime(2027, 1, 1, 10, tzinfo=UTC)
    other = Limits(deadline="2027-01-01T10:00+02:00").deadline
    assert (other, other.tzinfo) == (datetime(2027, 1, 1, 8, tzinfo=UTC), UTC)


def test_sections_come_in_the_order_of_a_form():
    """Dataset, what to do, where, limits, the campaign's name, and what few people need last."""
    fields = list(VideoAnalysis.model_json_schema()["properties"])

    assert fields == ["dataset", "params", "where", "limits", "name", "only_new", "advanced"]


@pytest.mark.parametrize(
    "model",
    [
        VideoAnalysis,
        VideoParams,
        BatchInference,
        GenerateParams,
        EmbedParams,
        ClassifyParams,
        OpenAIBatchParams,
        FineTuning,
        Grid,
        Texts,
        TrainingParams,
        PrepareParams,
        Where,
        Limits,
        Advanced,
    ],
)
def test_every_field_has_a_title_and_a_description(model):
    """The form explains itself; a box by the docstring of its model."""
    assert model.__doc__
    for name, field in model.model_fields.items():
        assert field.title, name
        assert field.description or is_box(field), name


def is_box(field) -> bool:
    """A section, or a choice of several."""
    choices = get_args(field.annotation) or (field.annotation,)
    models = [get_args(each)[0] if get_args(each) else each for each in choices]
    return all(isinstance(each, type) and issubclass(each, BaseModel) for each in models)


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("campaign.limits.max_workers", {"max_workers": 0}),
        ("campaign.limits.budget_usd", {"budget_usd": -1}),
        ("campaign.advanced.chunk_weight", {"chunk_weight": 0}),
        ("campaign.advanced.job_hours", {"job_hours": 0}),
        ("campaign.where.platforms", {"platforms": []}),
        ("campaign.where.platforms[0]", {"platforms": ["moon"]}),
        ("campaign.name", {"only_new": True, "name": "nightly"}),
        ("campaign.params.analyses[0]", {"params": {"analyses": ["sound"]}}),
        ("campaign.limits", {"limits": {"workers": 2}}),
    ],
)
def test_prefect_refuses_at_submission(field, asked):
    """By the flow's schema, before there is a flow run: numbers, choices, misspelt names, fields that do not fit."""
    parameters = {"campaign": {"dataset": "videos/", **in_sections(**asked)}}

    with pytest.raises(validation.ValidationError) as refusal:
        validation.validate(parameters, SCHEMA, raise_on_error=True)

    assert field in str(refusal.value)


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("campaign.where.store_root", {"store_root": "./folder"}),
        ("campaign.dataset", {"dataset": "./folder"}),
        ("campaign.dataset", {"dataset": ["gs://bucket/videos", "./folder"]}),
    ],
)
def test_prefect_refuses_paths_that_a_cloud_cannot_reach(field, asked):
    """Folders of this machine go with the platform local only."""
    reachable = {"dataset": "gs://bucket/videos", "platforms": ["local", "modal"], "store_root": "gs://bucket/runs"}
    validation.validate({"campaign": in_sections(**reachable)}, ALL_PLATFORMS, raise_on_error=True)

    parameters = {"campaign": in_sections(**{**reachable, **asked})}
    with pytest.raises(validation.ValidationError) as refusal:
        validation.validate(parameters, ALL_PLATFORMS, raise_on_error=True)

    assert field in str(refusal.value)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"budget_usd": 0, "deadline": "2027-01-01T10:00:00+00:00"},
        {"budget_usd": None, "deadline": None, "chunk_weight": None},
        {"only_new": True, "name": "nightly-{date}"},
        {"dataset": ["a.mp4", "b.mp4"]},
    ],
)
def test_prefect_takes_what_a_form_sends(asked):
    """What is left empty, what is typed, one input and several."""
    parameters = {"campaign": in_sections(**{"dataset": "videos/", **asked})}

    validation.validate(parameters, SCHEMA, raise_on_error=True)


@pytest.mark.parametrize("asked", [{"max_worker": 3}, {"params": {"segment": 3}}, {"where": {"platforms": ["moon"]}}])
def test_what_is_unknown_is_refused(asked):
    """A misspelt name is an error, not a default."""
    with pytest.raises(ValidationError):
        VideoAnalysis(dataset="x", **asked)


def test_a_spec_has_what_determines_the_rows():
    """Workload, parameters and the scheduled start reach the split; a list of one is that one."""
    spec = VideoAnalysis(dataset=["videos/"], params={"segment_s": 7}, name="day-{date}").spec(NOW)

    assert (spec.dataset, spec.workload, spec.name, spec.scheduled_for) == ("videos/", "video", "day-{date}", NOW)
    assert spec.params["segment_s"] == 7


@pytest.mark.parametrize(
    ("params", "workload"),
    [
        ({}, "generate"),
        ({"max_new_tokens": 5}, "generate"),
        ({"task": "embed"}, "embed"),
        ({"task": "openai-batch"}, "openai-batch"),
        ({"task": "classify"}, None),
    ],
)
def test_the_task_names_the_workload(params, workload):
    """Who names no task wants answers; a classifier has no default model."""
    if workload is None:
        with pytest.raises(ValidationError, match="model"):
            BatchInference(dataset="x", params=params)
    else:
        assert BatchInference(dataset="x", params=params).spec(NOW).workload == workload


@pytest.mark.parametrize(
    "params", [{"task": "generate", "pooling": "mean"}, {"task": "embed", "seed": 1}, {"task": "no"}]
)
def test_prefect_refuses_what_a_task_does_not_have(params):
    """Each task has its own fields: the form shows them as a choice."""
    schema = parameter_schema(batch_inference).model_dump_for_openapi()
    validation.validate({"campaign": {"dataset": "x", "params": {"task": "embed"}}}, schema, raise_on_error=True)

    with pytest.raises(validation.ValidationError):
        validation.validate({"campaign": {"dataset": "x", "params": params}}, schema, raise_on_error=True)
