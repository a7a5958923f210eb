"""What process 1 of a pod does beside its GPU workers."""

import httpx
import pytest

from gpu_jobs.platforms.runpod.pod_worker import end_pod

URL = "https://api.runpod.io/v2/pods/pod1"


@pytest.fixture
def asked(monkeypatch):
    """Requests that were made, with their keys; what RunPod answers them is set by status."""
    made = {"requests": [], "status": {"DELETE": 204, "POST": 200}}

    def answer(request):
        made["requests"].append(f"{request.method} {request.url} {request.headers['authorization']}")
        return httpx.Response(made["status"][request.method])

    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **given: client(transport=httpx.MockTransport(answer), **given))
    monkeypatch.setenv("RUNPOD_API_KEY", "own")
    monkeypatch.delenv("FANFOLD_POD_KEY", raising=False)
    return made


def test_a_pod_whose_gpu_workers_ended_well_is_terminated(asked):
    """By its own key."""
    end_pod(URL, is_well=True)

    assert asked["requests"] == [f"DELETE {URL} Bearer own"]


def test_a_pod_whose_gpu_workers_failed_is_stopped_so_that_it_is_seen(asked, monkeypatch):
    """By the user's restricted key, if there is one."""
    monkeypatch.setenv("FANFOLD_POD_KEY", "restricted")

    end_pod(URL, is_well=False)

    assert asked["requests"] == [f"POST {URL}/action Bearer restricted"]


def test_a_pod_that_may_not_terminate_itself_is_stopped(asked, caplog):
    """And if it may not do that either, it says so and lives."""
    asked["status"] = {"DELETE": 403, "POST": 403}

    end_pod(URL, is_well=True)

    assert asked["requests"] == [f"DELETE {URL} Bearer own", f"POST {URL}/action Bearer own"]
    assert "the pod cannot end itself" in caplog.text
