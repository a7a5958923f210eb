"""Checkpoints in the store: whole or not there, damaged ones skipped, the newest kept."""

import pytest

from gpu_jobs.ledger import keys
from gpu_jobs.testing import MemoryStore
from gpu_jobs.workloads.training.checkpoints import Checkpoints, Uploader
from gpu_jobs.workloads.training.gang_files import SAVED


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def a_checkpoint(out, step, *, processes=2, content="weights"):
    folder = out / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_text(f"{content} of step {step}")
    (folder / "optimizer.pt").write_text("momentum")
    for number in range(processes):
        (folder / f"{SAVED}{number}").touch()
    return folder


def restored(store, folder):
    """Step and weights of what a next attempt would go on from."""
    checkpoints = Checkpoints(store, 7)
    step = checkpoints.restore(folder)
    return step, (folder / "adapter_model.safetensors").read_text() if step else "", checkpoints.notes


def key_of(store, step, name):
    return next(
        entry.key for entry in store.list(f"checkpoints/{7:012d}/{step:08d}.") if entry.key.endswith(f"/{name}")
    )


def test_the_newest_checkpoint_comes_back_as_it_was(store, out, tmp_path):
    for step in (10, 20):
        Checkpoints(store, 7).save(a_checkpoint(out, step), step)

    assert restored(store, tmp_path / "new") == (20, "weights of step 20", [])


def test_another_items_checkpoint_is_not_taken(store, out, tmp_path):
    Checkpoints(store, 8).save(a_checkpoint(out, 10), 10)

    assert restored(store, tmp_path / "new")[0] == 0


def test_a_half_uploaded_checkpoint_is_never_taken(store, out, tmp_path):
    """Its GPU worker was killed between the files and the manifest."""
    Checkpoints(store, 7).save(a_checkpoint(out, 10), 10)
    Checkpoints(store, 7).save(a_checkpoint(out, 20), 20)
    store.delete(keys.checkpoint(7, 20))

    assert restored(store, tmp_path / "new") == (10, "weights of step 10", [])


@pytest.mark.parametrize("damage", ["other bytes", "gone", "no manifest at all"])
def test_a_damaged_checkpoint_is_skipped_with_a_note(store, out, tmp_path, damage):
    """And the one before it is taken."""
    for step in (10, 20):
        Checkpoints(store, 7).save(a_checkpoint(out, step), step)
    key = key_of(store, 20, "adapter_model.safetensors")
    if damage == "no manifest at all":
        store.put(keys.checkpoint(7, 20), b"{")
    else:
        store.delete(key)
        if damage == "other bytes":
            store.create(key, b"half of it")

    step, weights, notes = restored(store, tmp_path / "new")

    assert (step, weights) == (10, "weights of step 10")
    assert len(notes) == 1
    assert notes[0].startswith("checkpoint 20 was skipped: ")


def test_the_two_newest_are_kept_and_nothing_is_left_of_the_others(store, out):
    for step in (10, 20, 30, 40):
        Checkpoints(store, 7).save(a_checkpoint(out, step), step)

    steps = {entry.key.split("/")[2].partition(".")[0] for entry in store.list(keys.CHECKPOINTS)}
    assert steps == {"00000030", "00000040"}


def test_of_two_attempts_at_one_step_the_first_stays(store, out, tmp_path):
    """A GPU worker taken for dead went on: both checkpoints are good, and one is kept whole."""
    Checkpoints(store, 7).save(a_checkpoint(out, 10, content="first"), 10)
    (tmp_path / "other").mkdir()
    Checkpoints(store, 7).save(a_checkpoint(tmp_path / "other", 10, content="second"), 10)

    assert restored(store, tmp_path / "new")[1] == "first of step 10"
    assert len(list(store.list(keys.CHECKPOINTS))) == 3


def test_what_is_still_being_written_is_not_uploaded(store, out):
    """One of two processes has not written its share."""
    a_checkpoint(out, 10, processes=1)
    uploader = Uploader(Checkpoints(store, 7), out, processes=2, after_step=0)

    assert not uploader.finish()
    assert not list(store.list(keys.CHECKPOINTS))


def test_checkpoints_that_were_overtaken_are_left_out(store, out):
    """A slow bucket holds nobody up: the newest goes, older ones leave the disk."""
    for step in (10, 20, 30):
        a_checkpoint(out, step)
    uploader = Uploader(Checkpoints(store, 7), out, processes=2, after_step=0)

    assert uploader.finish()
    assert [entry.key for entry in store.list(keys.CHECKPOINTS) if entry.key.endswith(".json")] == [
        keys.checkpoint(7, 30)
    ]
    assert [folder.name for folder in out.iterdir()] == ["checkpoint-30"]


def test_a_store_that_does_not_answer_costs_no_training(out):
    """The next look tries again."""
    store = MemoryStore(request_lost=lambda number, _key: number <= 2)
    a_checkpoint(out, 10)
    checkpoints = Checkpoints(store, 7)
    uploader = Uploader(checkpoints, out, processes=2, after_step=0)

    found = [uploader.poll()]
    while not any(found):
        found.append(uploader.poll())
    uploader.finish()

    assert len(checkpoints.notes) == 2
    assert "could not be stored" in checkpoints.notes[0]
