"""What Modal's own client, command line and container entry point must find at the emulator."""

import os
import signal
import subprocess
import sys
import time

import modal
import psutil
import pytest
from modal.exception import (
    AuthError,
    FunctionTimeoutError,
    InternalFailure,
    InvalidError,
    NotFoundError,
    OutputExpiredError,
    RemoteError,
    ResourceExhaustedError,
)

from gpu_jobs.emulators.modal import Fault, rehearsal

APP = "conformance"
FUNCTIONS = """
import os, signal, sys, time
import modal
from modal.exception import InputCancellation

app = modal.App("conformance", tags={"made-by": "test"})
options = {"timeout": 60, "scaledown_window": 2, "image": modal.Image.debian_slim().env({"FROM_IMAGE": "a b"})}


@app.function(**options, secrets=[modal.Secret.from_dict({"FROM_SECRET": "s3"})])
def about():
    names = ("FROM_IMAGE", "FROM_SECRET", "EMULATED_GPU", "MODAL_TASK_ID")
    return {name: os.environ.get(name, "") for name in names}


@app.function(**options)
def double(value):
    return 2 * value


@app.function(**options)
def fail():
    raise KeyError("no such thing")


@app.function(**options, retries=modal.Retries(max_retries=2, initial_delay=0.0))
def fail_twice(path):
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < 3:
        raise RuntimeError("again")
    return "third"


@app.function(**{**options, "timeout": 1})
def dawdle(path):
    try:
        time.sleep(60)
    except InputCancellation:
        open(path, "w").write("checkpoint")
        raise


@app.function(**{**options, "timeout": 1})
def refuse_to_end():
    while True:
        try:
            time.sleep(60)
        except (InputCancellation, KeyboardInterrupt):
            pass


@app.function(**options)
def die():
    os._exit(7)


@app.function(**options)
def wait_for(path):
    print("waiting for", path)
    while not os.path.exists(path):
        time.sleep(0.02)
    return os.environ["MODAL_TASK_ID"]
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("app") / "conformance.py"
    path.write_text(FUNCTIONS)
    return path


@pytest.fixture
def cloud(modal_cloud, script):
    """The emulator with the app, deployed by Modal's command line once."""
    if not any(app.name == APP for app in modal_cloud.records.apps.values()):
        deploy(script)
    return modal_cloud


@pytest.fixture
def client(cloud):
    return modal.Client.from_credentials(os.environ["MODAL_TOKEN_ID"], os.environ["MODAL_TOKEN_SECRET"])


@pytest.fixture
def function(client):
    return lambda name: modal.Function.from_name(APP, name, client=client)


def deploy(script):
    command = [sys.executable, "-m", "modal", "deploy", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_was_deployed_by_the_command_line_is_found(client):
    """The app with its tags, functions by name; what was not deployed is not found."""
    app = modal.App.lookup(APP, client=client)

    assert app.get_tags(client=client) == {"made-by": "test"}
    modal.Function.from_name(APP, "double", client=client).hydrate()
    with pytest.raises(NotFoundError):
        modal.Function.from_name(APP, "triple", client=client).hydrate()
    with pytest.raises(NotFoundError):
        modal.App.lookup("no-such-app", client=client)


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


def test_options_make_a_variant_with_containers_of_its_own(cloud, function):
    """GPU and count, limit; equal options share containers, and the image's and secrets' environment stays."""
    wanted = {"gpu": "a100:4", "max_containers": 2, "timeout": 50}
    first = function("about").with_options(**wanted).spawn().get(timeout=60)
    again = function("about").with_options(**wanted).spawn().get(timeout=60)
    plain = function("about").spawn().get(timeout=60)

    assert first == {**plain, "EMULATED_GPU": "A100:4", "MODAL_TASK_ID": first["MODAL_TASK_ID"]}
    assert (plain["FROM_IMAGE"], plain["FROM_SECRET"], plain["EMULATED_GPU"]) == ("a b", "s3", "")
    assert again["MODAL_TASK_ID"] == first["MODAL_TASK_ID"] != plain["MODAL_TASK_ID"]


def test_no_more_containers_live_than_are_allowed(cloud, function, tmp_path):
    """Six calls, two containers, every call done."""
    two = function("wait_for").with_options(max_containers=2, timeout=59)
    calls = [two.spawn(str(tmp_path / "go")) for _ in range(6)]
    cloud.wait(lambda: sum(cloud.container_of(call.object_id) is not None for call in calls) == 2)
    (tmp_path / "go").touch()

    assert len({call.get(timeout=60) for call in calls}) == 2


def test_an_idle_container_ends_after_its_window_and_the_bill_says_so(cloud, function):
    """A call within the window finds it warm."""
    pool = function("double").with_options(timeout=51)
    for _ in range(2):
        pool.spawn(1).get(timeout=60)
    line = cloud.bill.lines[-1]

    assert (line.num_inputs, line.is_running) == (2, True)
    cloud.wait(lambda: not line.is_running)
    assert line.idle_s >= 2
    assert line.life_s >= line.start_s + line.idle_s
    assert cloud.bill.usd > 0


def test_new_code_runs_after_the_old_containers_have_drained(cloud, client, tmp_path):
    """A redeploy by the API leaves running calls alone, and later ones get the new code."""

    def deployed(text):
        app = modal.App("changing")

        @app.function(serialized=True, name="say", timeout=60)
        def say(path):
            while not os.path.exists(path):
                time.sleep(0.02)
            return text

        app.deploy(client=client)

    say = modal.Function.from_name("changing", "say", client=client)
    deployed("old")
    running = say.spawn(str(tmp_path / "go"))
    cloud.wait(lambda: cloud.container_of(running.object_id))

    deployed("new")
    (tmp_path / "go").touch()

    assert running.get(timeout=60) == "old"
    assert say.spawn(str(tmp_path / "go")).get(timeout=60) == "new"


def test_a_container_s_output_is_in_its_log(cloud, function, tmp_path):
    """Standard output, of the code that runs."""
    call = function("wait_for").spawn(str(tmp_path / "go"))
    cloud.wait(lambda: cloud.container_of(call.object_id))
    container = cloud.container_of(call.object_id)

    cloud.wait(lambda: f"waiting for {tmp_path / 'go'}" in cloud.log_of(container))


def test_a_dict_keeps_what_was_put_first_if_asked_to(client):
    """Put, put unless there, get, pop, list."""
    register = modal.Dict.from_name("a-dict", create_if_missing=True, client=client)

    assert register.put("a", 1, skip_if_exists=True)
    assert not register.put("a", 2, skip_if_exists=True)
    register.put("b", [3])

    assert dict(register.items()) == {"a": 1, "b": [3]}
    assert (register.get("a"), register.get("c"), register.pop("b")) == (1, None, [3])
    with pytest.raises(NotFoundError):
        modal.Dict.from_name("no-such-dict", client=client).get("a")


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


def test_a_stopped_app_leaves_no_container(cloud, client, tmp_path):
    """By the command line; its calls end."""
    app = modal.App("stopping")

    @app.function(serialized=True, name="wait", timeout=60, min_containers=1)
    def wait(path):
        time.sleep(60)

    app.deploy(client=client)
    call = modal.Function.from_name("stopping", "wait", client=client).spawn("x")
    cloud.wait(lambda: cloud.container_of(call.object_id))
    container = cloud.container_of(call.object_id)

    subprocess.run([sys.executable, "-m", "modal", "app", "stop", "stopping", "--yes"], check=False, timeout=60)

    with pytest.raises(RemoteError):
        call.get(timeout=60)
    cloud.wait(lambda: container not in cloud.containers())
    assert not any(line.function == "wait" and line.is_running for line in cloud.bill.lines)


def test_a_rehearsal_leads_there_and_bills(tmp_path):
    """The environment for any process; leaving it ends every container."""
    with rehearsal(tmp_path) as one:
        assert one.environ["MODAL_SERVER_URL"] == one.environ["FANFOLD_MODAL_EMULATOR"]
        assert one.environ["MODAL_SERVER_URL"].startswith("http://127.0.0.1:")
        assert one.bill().startswith("0 containers")


def test_containers_die_with_the_emulator(tmp_path):
    """Also when its process is killed."""
    code = f"""
import os, time, pathlib
from gpu_jobs.emulators.modal import ModalEmulator
with ModalEmulator(pathlib.Path({str(tmp_path)!r})) as emulator:
    os.environ.update(emulator.environ)
    import modal
    app = modal.App("x")
    @app.function(serialized=True, min_containers=1)
    def forever(): pass
    app.deploy()
    emulator.wait(lambda: [each for each in emulator.bill.lines if each.ready_s])
    print(emulator.containers()[0]._process.pid, flush=True)
    time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    container = psutil.Process(int(owner.stdout.readline()))

    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()

    container.wait(timeout=60)


def test_a_gpu_that_modal_does_not_have_is_refused(function):
    """As a wrong argument."""
    with pytest.raises(InvalidError, match="V100"):
        function("about").with_options(gpu="V100").spawn()
