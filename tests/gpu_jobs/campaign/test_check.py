"""What a campaign is refused for, before anything is read or written."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gpu_jobs.campaign.campaign import check
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.errors import RefusedError
from gpu_jobs.testing import a_policy

SPEC = CampaignSpec(store_root="/here/store", dataset="/here/data", workload="noop")
REMOTE = {"store_root": "gs://there/store", "dataset": "gs://there/data"}
LOCAL = a_policy(platforms=("local",))
NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("spec", "policy", "field"),
    [
        ({}, {"budget_usd": -1.0}, "budget_usd"),
        ({}, {"deadline": NOW}, "deadline"),
        ({}, {"max_workers": 0}, "max_workers"),
        ({"chunk_weight": 0.0}, {}, "chunk_weight"),
        ({}, {"platforms": ()}, "platforms"),
        ({"dataset": "gs://there/data"}, {"platforms": ("local", "modal")}, "store_root"),
        ({"store_root": "gs://there/store"}, {"platforms": ("modal",)}, "dataset"),
        ({**REMOTE, "dataset": ["gs://there/data", "/here/data"]}, {"platforms": ("modal",)}, "dataset"),
    ],
)
def test_what_cannot_work_is_refused_by_field(spec, policy, field):
    """Before anything is read or written, with the name of what to change."""
    with pytest.raises(RefusedError) as refused:
        check(replace(SPEC, **spec), replace(LOCAL, **policy), NOW)

    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field}: ")


@pytest.mark.parametrize("spec", [{}, REMOTE])
def test_what_can_work_is_not_refused(spec):
    """A local platform takes both kinds of place, and a deadline in the future."""
    check(replace(SPEC, **spec), replace(LOCAL, deadline=NOW + timedelta(seconds=1), budget_usd=0.0), NOW)
