"""RunPod's replies, generated from the part of its OpenAPI document that Fanfold reads: read, or refused by name."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu_jobs.errors import OutcomeUnknownError, PlatformError
from gpu_jobs.jobs.orders import Handle, Observation
from gpu_jobs.platforms.runpod.api import Account
from gpu_jobs.platforms.runpod.pods import Pods
from gpu_jobs.platforms.runpod.replies import shape
from gpu_jobs.platforms.runpod.serverless import Endpoints
from gpu_jobs.platforms.runpod.settings import RunPodSettings

ORDER = "ff-root-campaign-1"
NAME = f"{ORDER}-w0-3-t1795564800"
times = st.integers(1_600_000_000, 1_900_000_000).map(
    lambda at: datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
)
RUNTIME = st.fixed_dictionaries(
    {}, optional={"uptime": st.integers(0, 10**9), "gpus": st.just([]), "cpu": st.just({}), "ports": st.just([])}
)
"""`PodRuntime`: the document requires none of its fields."""
STATUSES = st.sampled_from(["PROVISIONING", "STARTING", "RUNNING", "EXITED", "ERROR", "TERMINATED"])
POD = st.fixed_dictionaries(
    {"id": st.text(min_size=1, max_size=8), "name": st.sampled_from([NAME, "someone-else"]), "status": STATUSES},
    optional={"createdAt": times, "runtime": st.none() | RUNTIME, "actions": st.just(["stop"]), "new": st.just(1)},
)
POD_PAGE = st.fixed_dictionaries(
    {"pods": st.lists(POD, max_size=4)},
    optional={"pagination": st.none() | st.just({}) | st.just({"hasNextPage": False, "nextCursor": None})},
)
COUNTS = ("inQueue", "inProgress", "completed", "failed", "retried")
HEALTH = st.fixed_dictionaries(
    {"jobs": st.fixed_dictionaries({}, optional=dict.fromkeys(COUNTS, st.integers(0, 5)))},
    optional={"workers": st.just({"idle": 1})},
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just(NAME),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["pods", "id", "name", "status", "runtime", "uptime", "createdAt", "pagination", "jobs", *COUNTS]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


class Told(Account):
    """An account whose every call gets the same reply; `deleted` are the paths of deletions."""

    def __init__(self, reply):
        super().__init__("http://127.0.0.1:1", "http://127.0.0.1:1/ai", "key")
        self._reply = reply
        self.deleted = []

    async def _send(self, method, url, body):
        if method == "DELETE":
            self.deleted.append(url)
            return None
        return self._reply


def looked(kind, reply):
    handle = Handle(platform="runpod", order=ORDER, id=f"{'pods' if kind is Pods else 'serverless'}/x")
    jobs = kind(Told(reply), RunPodSettings(api_key="k"), poll_s=0.0, find_lag_s=0.0)
    return asyncio.run(jobs.observe([handle]))[handle]


@settings(max_examples=60, deadline=None)
@given(POD_PAGE)
@example({"pods": [{"id": "p", "name": NAME, "status": "RUNNING", "runtime": {}}]})
def test_every_list_of_pods_that_the_document_allows_is_read(page):
    """Also one whose pods run without an uptime: a `KeyError` there ended the flow, and the pods ran on."""
    assert isinstance(looked(Pods, page), Observation)


@settings(max_examples=40, deadline=None)
@given(HEALTH)
def test_every_health_that_the_document_allows_is_read(health):
    """Counts that are missing are zero."""
    assert isinstance(looked(Endpoints, health | {"summary": {}, "status": "FAILED"}), Observation)


@settings(max_examples=150, deadline=None)
@given(ANYTHING, st.sampled_from([Pods, Endpoints]))
def test_any_other_reply_is_a_platform_error(reply, kind):
    """The loop handles those; any other exception would end the flow, while GPUs go on to cost."""
    with suppress(PlatformError):
        assert isinstance(looked(kind, reply), Observation)


def test_a_reply_that_cannot_be_read_shows_its_shape():
    """So that a person sees what RunPod has changed."""
    with pytest.raises(OutcomeUnknownError, match=r"cannot be read .id: .*: {id: int, name: str, status: str}"):
        looked(Pods, {"pods": [{"id": 7, "name": NAME, "status": "RUNNING"}]})


def test_the_shape_of_a_reply_shows_no_values():
    """A reply may contain environment variables."""
    assert shape({"env": {"KEY": "secret"}, "ids": [1, 2, None]}) == "{env: {KEY: str}, ids: [int, null]}"
