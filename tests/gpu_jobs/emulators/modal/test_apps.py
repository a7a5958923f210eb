"""Apps and their containers, as Modal's own client and command line must find them at the emulator."""

import os
import signal
import subprocess
import sys
import time

import modal
import psutil
import pytest
from modal.exception import (
    InvalidError,
    NotFoundError,
    RemoteError,
)

from gpu_jobs.emulators.modal import rehearsal
from tests.gpu_jobs.emulators.modal_functions import APP


def test_what_was_deployed_by_the_command_line_is_found(client):
    """The app with its tags, functions by name; what was not deployed is not found."""
    app = modal.App.lookup(APP, client=client)

    assert app.get_tags(client=client) == {"made-by": "test"}
    modal.Function.from_name(APP, "double", client=client).hydrate()
    with pytest.raises(NotFoundError):
        modal.Function.from_name(APP, "triple", client=client).hydrate()
    with pytest.raises(NotFoundError):
        modal.App.lookup("no-such-app", client=client)


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
