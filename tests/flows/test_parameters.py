"""What a person may ask for."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError
from small_flows import NoopCampaign

from flows.video_analysis import VideoAnalysis
from gpu_jobs.jobs import Policy

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_defaults_are_the_librarys():
    """Whoever asks for nothing gets the policy that the library has by default."""
    assert NoopCampaign(dataset="x").policy == Policy()


def test_a_deadline_without_a_zone_is_utc():
    """A form or a shell has no zone; another zone is turned into UTC."""
    assert NoopCampaign(dataset="x", deadline="2027-01-01T10:00").policy.deadline == datetime(
        2027, 1, 1, 10, tzinfo=UTC
    )
    other = NoopCampaign(dataset="x", deadline="2027-01-01T10:00+02:00").policy.deadline
    assert (other, other.tzinfo) == (datetime(2027, 1, 1, 8, tzinfo=UTC), UTC)


def test_sections_come_in_the_order_of_a_form():
    """Dataset, what to do, where, limits, and what few people need last."""
    fields = list(VideoAnalysis.model_json_schema()["properties"])

    assert fields[:7] == ["dataset", "params", "platforms", "store_root", "max_workers", "budget_usd", "deadline"]


def test_every_field_has_a_title_and_a_description():
    """The form explains itself."""
    for name, field in VideoAnalysis.model_fields.items():
        assert field.title, name
        assert field.description or name == "params"


@pytest.mark.parametrize("asked", [{"max_worker": 3}, {"params": {"segment": 3}}, {"platforms": ["moon"]}])
def test_what_is_unknown_is_refused(asked):
    """A misspelt name is an error, not a default."""
    with pytest.raises(ValidationError):
        VideoAnalysis(dataset="x", **asked)


def test_a_spec_has_what_determines_the_rows():
    """Workload, parameters and the scheduled start reach the split; a list of one is that one."""
    spec = VideoAnalysis(dataset=["videos/"], params={"segment_s": 7}, name="day-{date}").spec(NOW)

    assert (spec.dataset, spec.workload, spec.name, spec.scheduled_for) == ("videos/", "video", "day-{date}", NOW)
    assert spec.params["segment_s"] == 7
