"""What becomes of a call, as Modal's own client must find it at the emulator."""

import modal
import pytest
from modal.exception import (
    AuthError,
    FunctionTimeoutError,
    InternalFailure,
    NotFoundError,
    OutputExpiredError,
    RemoteError,
    ResourceExhaustedError,
)

from gpu_jobs.emulators.modal import Fault
from tests.gpu_jobs.emulators.modal_functions import APP, deploy


def test_a_spawned_call_runs_and_is_read_as_often_as_wanted(function, client):
    """By the call, and by its id."""
    call = function("double").spawn(21)

    assert call.get(timeout=60) == 42
    assert modal.FunctionCall.from_id(call.object_id, client=client).get(timeout=0) == 42
    assert function("double").remote(4) == 8


def test_a_look_at_what_runs_says_so_and_unknown_calls_are_not_found(function, client, tmp_path):
    """Python's own TimeoutError, at once and after a while."""
    call = function("wait_for").spawn(str(tmp_path / "go"))

    for timeout in (0, 0.2):
        with pytest.raises(TimeoutError):
            call.get(timeout=timeout)
    (tmp_path / "go").touch()

    assert call.get(timeout=60).startswith("ta-")
    with pytest.raises(NotFoundError):
        modal.FunctionCall.from_id("fc-0000000000000000000000", client=client).get(timeout=0)


def test_an_exception_comes_back_as_it_was(function):
    """Class and message."""
    with pytest.raises(KeyError, match="no such thing"):
        function("fail").spawn().get(timeout=60)


def test_the_server_tries_again_what_failed(function, tmp_path):
    """Two retries of a spawned call; without retries the first failure stands."""
    assert function("fail_twice").spawn(str(tmp_path / "a")).get(timeout=60) == "third"

    once = function("fail_twice").with_options(retries=0)
    with pytest.raises(RuntimeError, match="again"):
        once.spawn(str(tmp_path / "b")).get(timeout=60)


def test_a_timeout_interrupts_the_code_and_fails_the_call(function, tmp_path):
    """The code may write a checkpoint; the container stays."""
    with pytest.raises(FunctionTimeoutError):
        function("dawdle").spawn(str(tmp_path / "note")).get(timeout=60)

    assert (tmp_path / "note").read_text() == "checkpoint"


def test_code_that_does_not_end_at_its_timeout_is_killed(function):
    """Cancelled, interrupted, killed."""
    with pytest.raises(FunctionTimeoutError):
        function("refuse_to_end").spawn().get(timeout=60)


def test_a_call_whose_containers_keep_dying_fails(cloud, function):
    """As an internal failure, after a number of fresh containers; also without retries."""
    before = len(cloud.bill.lines)

    with pytest.raises(InternalFailure):
        function("die").spawn().get(timeout=120)
    assert len(cloud.bill.lines) == before + 3


def test_code_that_does_not_import_fails_its_calls(cloud, client, tmp_path):
    """With the exception of the import."""
    path = tmp_path / "broken.py"
    text = 'import modal\nif not modal.is_local():\n    raise ValueError("not here")\napp = modal.App("broken")\n'
    path.write_text(f"{text}@app.function()\ndef broken(): pass\n")
    deploy(path)

    with pytest.raises(ValueError, match="not here"):
        modal.Function.from_name("broken", "broken", client=client).spawn().get(timeout=120)


def test_a_preempted_call_starts_again_in_another_container(cloud, function, tmp_path):
    """The same call, without retries."""
    call = function("wait_for").spawn(str(tmp_path / "go"))
    cloud.wait(lambda: cloud.container_of(call.object_id))
    first = cloud.container_of(call.object_id)

    cloud.preempt(first)
    cloud.wait(lambda: cloud.container_of(call.object_id) not in (None, first))
    (tmp_path / "go").touch()

    assert call.get(timeout=60) != first.id


def test_a_cancelled_call_ends_queued_or_running(cloud, function, tmp_path):
    """Running ones are interrupted and keep their container; queued ones never run."""
    alone = function("wait_for").with_options(max_containers=1)
    running = alone.spawn(str(tmp_path / "never"))
    queued = alone.spawn(str(tmp_path / "never"))
    cloud.wait(lambda: cloud.container_of(running.object_id))
    container = cloud.container_of(running.object_id)
    assert cloud.container_of(queued.object_id) is None

    queued.cancel()
    running.cancel()

    for call in (running, queued):
        with pytest.raises(RemoteError):
            call.get(timeout=60)
    assert container in cloud.containers()
    assert container.line.num_inputs == 1


def test_a_cancel_may_end_the_container(cloud, function, tmp_path):
    """At once, not after its idle window."""
    call = function("wait_for").with_options(scaledown_window=3600).spawn(str(tmp_path / "never"))
    cloud.wait(lambda: cloud.container_of(call.object_id))
    container = cloud.container_of(call.object_id)

    call.cancel(terminate_containers=True)

    with pytest.raises(RemoteError):
        call.get(timeout=60)
    cloud.wait(lambda: container not in cloud.containers())
    assert not container.line.is_running


def test_large_arguments_and_results_travel_as_blobs(cloud, function):
    """5 MB each way."""
    assert function("double").spawn(b"x" * 5_000_000).get(timeout=60) == b"x" * 10_000_000
    assert "BlobCreate" in cloud.calls
    assert "BlobGet" in cloud.calls


def test_a_lost_reply_makes_no_second_call(cloud, function):
    """The client tries again with the same key, and gets the reply of the first time."""
    before = len(cloud.records.calls)
    cloud.script.faults.append(Fault(method="FunctionMap", reply_is_lost=True))

    assert function("double").spawn(3).get(timeout=60) == 6
    assert len(cloud.records.calls) == before + 1


def test_a_rate_limit_a_forgotten_result_and_a_wrong_token_are_errors_of_their_own(cloud, function):
    """As the client tells them."""
    cloud.script.faults.append(Fault(method="FunctionMap", status="RESOURCE_EXHAUSTED"))
    with pytest.raises(ResourceExhaustedError):
        function("double").spawn(1)

    call = function("double").spawn(1)
    call.get(timeout=60)
    cloud.expire(call.object_id)
    with pytest.raises(OutputExpiredError):
        call.get(timeout=0)

    stranger = modal.Client.from_credentials("ak-wrong", "as-wrong")
    with pytest.raises(AuthError):
        modal.App.lookup(APP, client=stranger)
