"""Bad items become rows of the quarantine table; every other row is there."""

from dataclasses import replace

import pytest

from gpu_jobs.errors import RefusedError
from gpu_jobs.jobs.failures import Failure
from gpu_jobs.workloads.noop import value_of
from tests.chaos import hostile
from tests.chaos.havoc import finish, quarantine_of, rows_of

BAD = {
    7: ("segfault-7", "crashed", "SIGSEGV"),
    12: ("raise-12", "error", "ValueError: this item makes infer raise"),
    15: ("refuse-15", "error", "this item is not to be used"),
    22: ("kill-22", "crashed", "SIGKILL"),
    33: ("bad-row-33", "error", "do not fit the workload's columns"),
}
ITEMS = [BAD[index][0] if index in BAD else f"ok-{index}" for index in range(40)]
ITEMS[30] = "empty-30"


def failures(campaign):
    """Of GPU jobs that were not stopped with the campaign."""
    return {end.failure for end in campaign.journal.read().ended.values() if end.failure}


def test_each_bad_item_is_quarantined_with_its_cause_and_no_other_row_is_lost(open_hostile, policy):
    """Items that kill, raise, refuse or return nonsense, among good ones and one that is empty."""
    campaign = open_hostile(ITEMS)

    manifest = finish(campaign, policy)

    set_aside = quarantine_of(campaign, manifest)
    assert set_aside["item_index"].to_list() == sorted(BAD)
    for row in set_aside.iter_rows(named=True):
        item, cause, detail = BAD[row["item_index"]]
        assert (row["item"], row["cause"]) == (item, cause)
        assert detail in row["detail"]
        assert row["attempts"] >= 1
    good = [(index, name, value_of(name)) for index, name in enumerate(ITEMS) if name.startswith("ok")]
    assert rows_of(campaign, manifest).rows() == good
    assert manifest.num_committed == 35
    assert manifest.is_complete


def test_an_item_that_spoils_its_batch_costs_no_other_item(open_hostile, policy):
    """A batch that raises is repeated in halves; what works alone has rows."""
    names = [f"ok-{index}" for index in range(12)]
    names[5] = "batch-5"
    campaign = open_hostile(names, chunk_items=12, batch=6)

    manifest = finish(campaign, policy)

    assert rows_of(campaign, manifest)["item"].to_list() == names
    assert manifest.num_quarantined == 0


def test_a_batch_that_does_not_fit_into_memory_is_made_smaller(open_hostile, policy):
    """Out of memory is nobody's fault: no item is quarantined, and no attempt ends by it."""
    names = [f"ok-{index}" for index in range(20)]
    campaign = open_hostile(names, chunk_items=20, batch=16, fits=3)

    manifest = finish(campaign, policy)

    assert rows_of(campaign, manifest)["item"].to_list() == names
    assert [entry.key for entry in campaign.store.list("attempts/") if ".end." in entry.key] == []


def test_an_item_that_hangs_is_quarantined_as_stalled(open_hostile, policy):
    """A compute process that says nothing for too long is killed, like one that died."""
    names = [f"ok-{index}" for index in range(6)]
    names[4] = "hang-4"
    campaign = open_hostile(names, chunk_items=3)

    manifest = finish(campaign, replace(policy, stall_s=4.0))

    (row,) = quarantine_of(campaign, manifest).iter_rows(named=True)
    assert (row["item"], row["cause"]) == ("hang-4", "stalled")
    assert "sent no message" in row["detail"]
    assert rows_of(campaign, manifest).height == 5


def test_a_killer_left_alone_is_still_convicted(open_hostile, policy):
    """A fresh GPU worker that finds only the killer proves itself on a committed item first."""
    campaign = open_hostile(["ok-0", "segfault-1"], chunk_items=1)

    manifest = finish(campaign, policy)

    assert quarantine_of(campaign, manifest)["item"].to_list() == ["segfault-1"]
    assert rows_of(campaign, manifest)["item"].to_list() == ["ok-0"]


@pytest.mark.slow
def test_a_dataset_of_killers_convicts_nobody(open_hostile, policy):
    """Where nothing ever worked, host and image are suspects too: the campaign closes and says why."""
    campaign = open_hostile(["segfault-0", "segfault-1"], chunk_items=1)

    last = list(campaign.run(policy, tick_s=0.1))[-1]

    assert "3 GPU jobs in a row got nothing done" in last.closed
    assert "SIGSEGV" in last.closed
    assert failures(campaign) == {Failure.USER_CODE}
    assert last.items_left == 2


def test_a_workload_that_the_image_lacks_fails_before_leasing(open_hostile, policy, monkeypatch, tmp_path):
    """It is the image's fault: no attempt is ever begun, and no item is convicted."""
    (tmp_path / "only_here.py").write_text("from tests.chaos.hostile import Hostile")
    monkeypatch.syspath_prepend(tmp_path)
    campaign = open_hostile(["ok-0"], workload="only_here:Hostile")

    last = list(campaign.run(policy, tick_s=0.1))[-1]

    assert "image: workload 'only_here:Hostile' cannot be imported here" in last.closed
    assert list(campaign.store.list("attempts/")) == []


@pytest.mark.parametrize(
    ("setup", "failure"),
    [
        ("exit", Failure.USER_CODE),
        ("value", Failure.MODEL_LOAD),
        ("words", Failure.MODEL_LOAD),
        ("memory", Failure.OUT_OF_MEMORY),
        ("gpu", Failure.OUT_OF_MEMORY),
        ("large", Failure.OUT_OF_MEMORY),
        ("import", Failure.IMAGE),
    ],
)
def test_a_gpu_worker_knows_why_it_cannot_work_whatever_its_user_says(open_hostile, policy, setup, failure):
    """By the kind of what was raised; its words are shown, and decide nothing."""
    campaign = open_hostile(["ok-0"], setup=setup)

    list(campaign.run(replace(policy, max_idle_jobs=1, max_workers=1), tick_s=0.1))

    assert failures(campaign) == {failure}
    ((beat, _),) = campaign.ledger.heartbeats()
    assert beat.failure is failure
    assert (hostile.WORDS in beat.reason) == (setup not in ("exit", "gpu"))


def test_work_that_only_ever_times_out_is_told_by_no_words(open_hostile, policy):
    """It may be the store's fault, the network's or the user's code's; it is nobody's quota."""
    campaign = open_hostile(["time-out-0"])

    list(campaign.run(replace(policy, max_idle_jobs=1, max_workers=1), tick_s=0.1))

    assert failures(campaign) == {Failure.UNKNOWN}
    ((beat, _),) = campaign.ledger.heartbeats()
    assert hostile.WORDS in beat.reason


@pytest.mark.slow
def test_a_model_that_is_lost_at_work_convicts_no_item(open_hostile, policy):
    """Nothing can be inferred any more: the GPU worker ends and says why, and every item stays open."""
    campaign = open_hostile(["ok-0", "lose-model-1", "ok-2"], chunk_items=3, batch=3)

    last = list(campaign.run(policy, tick_s=0.1))[-1]

    assert "image: the model cannot be loaded again" in last.closed
    assert failures(campaign) == {Failure.IMAGE}
    assert (last.items_left, last.quarantined_items) == (3, 0)


def test_a_workload_that_nobody_has_is_refused(open_hostile):
    """Before anything is started, with the field's name."""
    with pytest.raises(RefusedError, match=r"^workload: "):
        open_hostile(["ok-0"], workload="nobody_has:This")
