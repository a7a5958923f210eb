"""A platform from outside of the package, as docs/adding-a-platform.md says, and all that the table makes know it."""

import asyncio
import runpy
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from gpu_jobs.campaign.campaign import check, open_campaign
from gpu_jobs.campaign.collect import collect
from gpu_jobs.campaign.plan import CampaignSpec
from gpu_jobs.campaign.reaper import reap
from gpu_jobs.errors import RefusedError
from gpu_jobs.jobs.names import order_prefix
from gpu_jobs.jobs.orders import Policy
from gpu_jobs.platforms import known_platforms, open_platform
from gpu_jobs.testing import an_order
from tests.contracts.bench import CampaignBench
from tests.contracts.test_platform import (
    test_a_killed_gpu_worker_is_seen,
    test_a_lost_reply_never_starts_it_twice,
    test_an_unknown_handle_is_gone,
    test_find_by_name_finds_the_same,
    test_list_owned_lists_what_runs_by_prefix,
    test_offers_are_of_this_platform,
    test_start_returns_a_handle_that_observe_knows,
    test_stop_ends_it_and_may_be_asked_again,
    test_stopping_what_never_was_is_silent,
)

ROOT = Path(__file__).parents[3]
CONTRACT = (
    test_a_killed_gpu_worker_is_seen,
    test_a_lost_reply_never_starts_it_twice,
    test_an_unknown_handle_is_gone,
    test_find_by_name_finds_the_same,
    test_list_owned_lists_what_runs_by_prefix,
    test_offers_are_of_this_platform,
    test_start_returns_a_handle_that_observe_knows,
    test_stop_ends_it_and_may_be_asked_again,
    test_stopping_what_never_was_is_silent,
)
"""Collected here too, and run with the bench below."""


class ToyBench(CampaignBench):
    unknown_id = "never-seen"

    def __init__(self, folder, platform):
        self.platform = platform
        super().__init__(folder)

    def kill_worker(self, handle):
        next(each for each in self.platform.processes[handle.order] if each.poll() is None).kill()


@pytest.fixture
def bench(toy, tmp_path):
    return ToyBench(tmp_path, toy.ToyPlatform())


@pytest.fixture
def spec(toy, tmp_path):
    table = tmp_path / "data.csv"
    table.write_text("id\n" + "".join(f"{number}\n" for number in range(20)))
    return CampaignSpec(store_root=str(tmp_path / "store"), dataset=str(table), workload="noop", chunk_weight=5.0)


POLICY = Policy(platforms=("toy",), max_workers=2, heartbeat_s=0.2, lease_timeout_s=5.0, budget_usd=1.0)


def test_a_campaign_runs_on_it_to_its_end(spec):
    """Every item once, paid for at the toy's price."""
    campaign = open_campaign(spec, POLICY)

    *_, last = campaign.run(POLICY, tick_s=0.1)

    assert last.items_done == 20
    assert collect(campaign.store, campaign.plan).is_complete
    assert {job.platform for job in last.jobs} == {"toy"}
    assert 0 < last.spent_usd < 0.1


def test_the_reaper_ends_what_nobody_owns_there(toy, spec):
    """A GPU job that carries this store's name and is in no journal."""
    campaign = open_campaign(spec, POLICY)
    order = an_order(
        name=f"{order_prefix(campaign.store.uri)}-0009", campaign_uri=campaign.store.uri, offer=toy.OFFERS[0]
    )
    handle = asyncio.run(open_platform("toy").start(order))

    (orphan,) = reap(spec.store_root, [open_platform("toy")], datetime.now(UTC))

    assert (orphan.order, orphan.platform, orphan.has_ended) == (order.name, "toy", True)
    assert asyncio.run(open_platform("toy").list_owned(handle.order)) == []


def test_the_check_of_a_campaign_reads_its_row(toy, spec, monkeypatch):
    """Whether it needs a bucket; and that it exists."""
    now = datetime.now(UTC)
    check(spec, POLICY, now)

    remote = toy.PlatformRow(name="toy", title="a remote toy", adapter=toy.ROW.adapter)
    monkeypatch.setattr(toy, "ROW", remote)
    known_platforms.cache_clear()
    with pytest.raises(RefusedError) as refused:
        check(spec, POLICY, now)
    assert refused.value.field == "store_root"

    monkeypatch.undo()
    known_platforms.cache_clear()
    with pytest.raises(RefusedError) as refused:
        check(spec, POLICY, now)
    assert refused.value.field == "platforms"


@pytest.mark.usefixtures("toy")
def test_forms_offer_it():
    """A flow's form is made when its module is imported; nothing else is accepted."""
    where = runpy.run_path(str(ROOT / "flows" / "parameters.py"))["Where"]

    assert "toy" in where.model_json_schema()["properties"]["platforms"]["items"]["enum"]
    assert where(platforms=["toy"]).platforms == ["toy"]
    with pytest.raises(ValidationError):
        where(platforms=["mars"])


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("command", "told"), [(["offers", "--platform", "toy"], "abacus"), (["doctor", "toy", "--store", "here"], "ok")]
)
def test_the_command_line_knows_it_in_a_process_of_its_own(tmp_path, command, told):
    """By the entry point alone."""
    ended = subprocess.run(
        [sys.executable, "-m", "gpu_jobs.cli", *command],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    assert told in ended.stdout


def test_two_rows_of_one_name_are_refused(toy, monkeypatch):
    """No package takes the place of another's platform."""
    monkeypatch.setattr(toy, "ROW", toy.PlatformRow(name="modal", title="", adapter=""))
    known_platforms.cache_clear()

    with pytest.raises(RefusedError, match="modal"):
        known_platforms()
