"""RunPod's emulator: what it does that RunPod documents, or that users report; and RunPod's own SDKs on it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from pytest_socket import socket_allow_hosts

from gpu_jobs.emulators.runpod import Image, RunPodEmulator, rehearsal
from gpu_jobs.emulators.runpod.container import has_namespaces
from tests.chaos.havoc import wait_for

HANDLER = """
import asyncio, os, pathlib, runpod

async def handler(job):
    asked = job["input"]
    if asked.get("die"):
        os._exit(7)
    if asked.get("raise"):
        raise ValueError("as asked")
    if "trace" in asked:
        pathlib.Path(asked["trace"]).touch()
    await asyncio.sleep(asked.get("sleep_s", 0))
    return {"echo": asked["text"]}

runpod.serverless.start({"handler": handler})
"""
SDK_2 = """
import json, os, time, runpod

runpod.api_key = "emulated"
pod = runpod.create_pod(
    "four-gpus", "shell", gpu_type_id="NVIDIA A100-SXM4-80GB", gpu_count=4, cloud_type="SECURE",
    container_disk_in_gb=50, docker_args="sleep infinity", env={"GREETING": 'with "quotes"'},
)
give_up_at = time.monotonic() + 60
while (seen := runpod.get_pod(pod["id"]))["status"] != "RUNNING":
    assert time.monotonic() < give_up_at, seen
    time.sleep(0.1)
assert [each["id"] for each in runpod.get_pods()] == [pod["id"]]
runpod.terminate_pod(pod["id"])
print(json.dumps({"version": runpod.__version__, "gpu": seen["gpu"], "env": seen["env"], "left": runpod.get_pods()}))
"""


@pytest.fixture(autouse=True)
def _loopback_only():
    socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)


def images(folder):
    """`shell` runs its command as it is; `worker` is a serverless worker of RunPod's SDK; `deaf` ignores SIGTERM."""
    (folder / "handler.py").write_text(HANDLER)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        "shell": Image(env={"PATH": path}),
        "worker": Image(argv=[sys.executable, str(folder / "handler.py")], env={"PATH": path}),
    }


class Client:
    """A client that knows nothing of RunPod."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.http = httpx.Client(base_url=emulator.url, headers={"Authorization": "Bearer emulated"}, timeout=30)

    def create(self, *command, image="shell", **changes):
        body = {"name": "pod", "image": image, "gpu": {"id": "NVIDIA L4", "count": 1}, "cmd": command} | changes
        return self.http.post("/v2/pods", json=body)

    def pod(self, *command, **changes):
        return self.create(*command, **changes).raise_for_status().json()["id"]

    def see(self, pod):
        return self.http.get(f"/v2/pods/{pod}").json()

    def until_running(self, pod):
        wait_for(lambda: self.see(pod)["status"] == "RUNNING")

    def endpoint(self, **changes):
        body = {
            "name": "endpoint", "type": "QUEUE", "image": "worker", "gpu": {"pools": ["AMPERE_24"]},
            "scaling": {"type": "REQUEST_COUNT", "requestCount": 1}, "workers": {"min": 0, "max": 1},
        }  # fmt: skip
        return self.http.post("/v2/serverless", json=body | changes).raise_for_status().json()["id"]

    def run(self, endpoint, policy=None, **asked):
        body = {"input": asked} | ({"policy": policy} if policy else {})
        return self.http.post(f"/ai/v2/{endpoint}/run", json=body).raise_for_status().json()["id"]

    def job(self, endpoint, job):
        return self.http.get(f"/ai/v2/{endpoint}/status/{job}")

    def until_job(self, endpoint, job, *statuses):
        wait_for(lambda: self.job(endpoint, job).json()["status"] in statuses, within_s=60)
        return self.job(endpoint, job).json()


@pytest.fixture
def open_client(tmp_path):
    """Clients of emulators with these knobs; at the end nothing bills."""
    opened = []

    def entered(**knobs):
        asked = {"quota_per_minute": None, "long_poll_s": 1.0, "grace_s": 0.2, **knobs}
        opened.append(Client(RunPodEmulator(images(tmp_path), log_dir=tmp_path, **asked).__enter__()))
        return opened[-1]

    yield entered
    for client in opened:
        client.http.close()
        client.emulator.__exit__()
        assert client.emulator.world.bill.num_open == 0


@pytest.fixture
def client(open_client):
    return open_client()


def test_a_command_that_ends_is_started_again_while_the_pod_reads_running(client, tmp_path):
    """For ever, whatever its exit code; only the uptime falls back."""
    trace = tmp_path / "trace"
    pod = client.pod("sh", "-c", f"echo $RUNPOD_POD_ID $RUNPOD_GPU_COUNT >> {trace}")

    wait_for(lambda: trace.exists() and len(trace.read_text().splitlines()) > 2)

    assert set(trace.read_text().splitlines()) == {f"{pod} 1"}
    assert client.see(pod)["status"] == "RUNNING"


def test_nothing_that_ran_in_a_pod_outlives_it(client, tmp_path):
    """Also what has left its session; a process 1 that does not listen to SIGTERM is killed after the grace."""
    if not has_namespaces():
        pytest.skip("no PID namespaces here: a process group cannot hold what leaves it")
    marker = f"8{time.time_ns() % 10**6:06d}"
    pod = client.pod("sh", "-c", f"setsid sleep {marker} & sleep {marker}")

    def alive():
        return [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", marker]]

    wait_for(lambda: len(alive()) == 2)
    client.http.delete(f"/v2/pods/{pod}").raise_for_status()

    wait_for(lambda: not alive())
    assert client.http.get(f"/v2/pods/{pod}").status_code == 404
    assert client.http.delete(f"/v2/pods/{pod}").status_code == 404


def test_a_stopped_pod_bills_its_volume_until_it_is_terminated(client):
    """Stop is not free: the volume costs twice its rate, the container's disk nothing."""
    pod = client.pod("sleep", "infinity", mounts={"persistent": {"size": 100, "path": "/workspace"}})
    client.until_running(pod)
    assert client.http.post(f"/v2/pods/{pod}/action", json={"action": "stop"}).status_code == 200
    wait_for(lambda: len(client.emulator.world.bill.lines) == 2)

    compute, stopped = client.emulator.world.bill.lines
    assert (compute.is_open, stopped.is_open) == (False, True)
    assert stopped.usd_per_hour == pytest.approx(100 * 0.2 / 730)
    assert client.see(pod)["status"] == "EXITED"
    assert client.http.post(f"/v2/pods/{pod}/action", json={"action": "stop"}).status_code == 409
    client.http.delete(f"/v2/pods/{pod}").raise_for_status()
    wait_for(lambda: client.emulator.world.bill.num_open == 0)


@pytest.mark.parametrize(("may", "status"), [({"terminate"}, 204), (set(), 403)])
def test_a_pods_own_key_ends_it_or_not_and_never_another(open_client, may, status):
    """Users' reports contradict each other, so both can be had."""
    client = open_client(pod_key_may=may)
    own, other = client.pod("sleep", "infinity"), client.pod("sleep", "infinity")
    key = {"Authorization": f"Bearer key-of-{own}"}

    assert client.http.delete(f"/v2/pods/{other}", headers=key).status_code == 403
    assert client.http.get("/v2/pods", headers=key).status_code == 403
    assert client.http.delete(f"/v2/pods/{own}", headers=key).status_code == status
    assert client.http.get("/v2/pods", headers={"Authorization": "Bearer nobody"}).status_code == 401


def test_secrets_reach_the_container_and_no_reply(open_client, tmp_path):
    """By reference; one that does not exist stays a reference."""
    client = open_client(secrets={"bucket": "s3cret"})
    trace = tmp_path / "trace"
    env = {"KEY": "{{ RUNPOD_SECRET_bucket }}", "OTHER": "{{ RUNPOD_SECRET_absent }}"}

    pod = client.pod("sh", "-c", f'echo "$KEY $OTHER" > {trace}; sleep infinity', env=env)

    wait_for(lambda: trace.exists() and trace.read_text())
    assert trace.read_text() == "s3cret {{ RUNPOD_SECRET_absent }}\n"
    assert client.see(pod)["env"] == env


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({"gpus": 4}, 422, "gpus: Extra inputs are not permitted"),
        ({"env": {str(number): "" for number in range(51)}}, 422, "env: "),
        ({"env": {"BIG": "x" * 110_000}}, 413, "too large"),
        ({"args": "sleep 1"}, 422, "exclude each other"),
        ({"gpu": {"id": "NVIDIA L4", "count": 9}}, 400, "not offered"),
        ({"gpu": {"id": "NVIDIA L4", "count": 2}, "dataCenterIds": ["US-KS-2"]}, 400, "no longer any instances"),
        ({"mounts": {"network": [{"volumeId": "vol1", "path": "/w"}]}, "dataCenterIds": ["US-KS-2"]}, 400, "vol1"),
    ],
)
def test_what_runpod_refuses_is_refused(open_client, changes, status, told):
    """In the form of RFC 9457."""
    client = open_client(stock={("NVIDIA L4", "EU-RO-1"): 8}, volumes={"vol1": "EU-RO-1"})

    reply = client.create("sleep", "1", **changes)

    assert reply.status_code == status
    assert told in json.dumps(reply.json())
    assert reply.headers["content-type"].startswith("application/problem+json")


def test_stock_is_taken_and_given_back(open_client):
    """Per GPU type and data centre."""
    client = open_client(stock={("NVIDIA L4", "EU-RO-1"): 1, ("NVIDIA L4", "US-KS-2"): 1})
    first, second = client.pod("sleep", "infinity"), client.pod("sleep", "infinity")

    assert {client.see(pod)["dataCenterId"] for pod in (first, second)} == {"EU-RO-1", "US-KS-2"}
    assert client.create("sleep", "infinity").status_code == 400
    client.http.delete(f"/v2/pods/{first}").raise_for_status()
    assert client.create("sleep", "infinity").status_code == 201


def test_a_serverless_job_is_done_by_a_worker_of_the_sdk(client):
    """The worker comes with the job and goes when it is idle; an exception is a failed job."""
    client.emulator.world.worker_idle_s = 0.5
    endpoint = client.endpoint()
    well, ill = client.run(endpoint, text="hello"), client.run(endpoint, **{"raise": True})

    assert client.until_job(endpoint, well, "COMPLETED")["output"] == {"echo": "hello"}
    assert "as asked" in client.until_job(endpoint, ill, "FAILED")["error"]
    health = client.http.get(f"/ai/v2/{endpoint}/health").json()
    assert health["jobs"] == {"completed": 1, "failed": 1, "inProgress": 0, "inQueue": 0, "retried": 0}
    wait_for(lambda: client.emulator.world.bill.num_open == 0)


@pytest.mark.slow
def test_jobs_are_cancelled_in_the_queue_and_at_work(client, tmp_path):
    """One worker: the second job waits. What is cancelled at work makes room for the next."""
    endpoint = client.endpoint()
    trace = tmp_path / "trace"
    at_work, waiting = client.run(endpoint, sleep_s=600, trace=str(trace)), client.run(endpoint, text="b")
    wait_for(trace.exists)  # the SDK forgets a stop that comes before its handler has begun

    for job in (waiting, at_work):
        assert client.http.post(f"/ai/v2/{endpoint}/cancel/{job}").json()["status"] == "CANCELLED"
    after = client.run(endpoint, text="c")

    assert client.until_job(endpoint, after, "COMPLETED")["output"] == {"echo": "c"}
    assert {client.job(endpoint, job).json()["status"] for job in (waiting, at_work)} == {"CANCELLED"}


@pytest.mark.slow
def test_time_limits_of_jobs_are_the_platforms(client):
    """`executionTimeout` makes it TIMED_OUT; a job whose `ttl` is over is gone, even if it runs."""
    endpoint = client.endpoint(workers={"max": 2})
    limited = client.run(endpoint, {"executionTimeout": 5000}, text="a", sleep_s=600)
    short = client.run(endpoint, {"ttl": 15000}, text="b", sleep_s=600)

    client.until_job(endpoint, limited, "TIMED_OUT")
    wait_for(lambda: client.job(endpoint, short).status_code == 404)


@pytest.mark.slow
def test_a_job_that_kills_its_worker_is_delivered_a_few_times_and_fails(client):
    """And is counted."""
    client.emulator.world.max_redeliveries = 1
    endpoint = client.endpoint()
    job = client.run(endpoint, die=True)

    assert "code 7" in client.until_job(endpoint, job, "FAILED")["error"]
    assert client.http.get(f"/ai/v2/{endpoint}/health").json()["jobs"]["retried"] == 1


@pytest.mark.slow
def test_the_sdk_2_makes_polls_and_terminates_a_pod_with_four_gpus(client, tmp_path):
    """RunPod's next SDK speaks REST v2. It lies in a folder of its own, before the SDK of the serverless workers."""
    folder = tmp_path / "sdk-2"
    install = ["pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", folder, "runpod==2.0.0rc2"]
    done = subprocess.run([sys.executable, "-m", *install], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    environ = {"PYTHONPATH": str(folder), "HOME": str(tmp_path), "RUNPOD_API_BASE_URL": client.emulator.url}

    command = [sys.executable, "-c", SDK_2]
    said = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=90, check=False)

    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout.splitlines()[-1]) == {
        "version": "2.0.0rc2",
        "gpu": {"id": "NVIDIA A100-SXM4-80GB", "count": 4},
        "env": {"GREETING": 'with "quotes"'},
        "left": [],
    }


def test_a_rehearsal_makes_its_folder_for_logs(tmp_path):
    """Without it no container could start, and nothing would tell why."""
    with rehearsal(tmp_path / "to" / "logs"):
        assert (tmp_path / "to" / "logs").is_dir()
