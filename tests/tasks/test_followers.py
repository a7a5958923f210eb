"""Task runs that follow GPU jobs, without a server."""

import threading

import pytest
from prefect.client.schemas.objects import StateType
from prefect.logging import disable_run_logger

from tasks.gpu_job import Follower, gpu_job
from tests.tasks.looks import a_job


def follow(follower: Follower):
    with disable_run_logger():
        return gpu_job.fn("ff-1", follower)


@pytest.mark.parametrize(
    ("status", "reason", "state"),
    [
        ("succeeded", "nothing is left to do", StateType.COMPLETED),
        ("failed", "killed by SIGKILL", StateType.FAILED),
        ("cancelled", "stopped: the deadline has passed", StateType.CANCELLED),
    ],
)
def test_a_task_run_ends_as_its_gpu_job_does(status, reason, state):
    """State and message say how the GPU job ended."""
    follower = Follower()
    for job in (a_job(status="pending"), a_job(), a_job(status=status, reason=reason, items_done=7)):
        follower.notify(job)

    end = follow(follower)

    assert end.type is state
    assert end.message.startswith(f"{status}: {reason}; ")
    assert "7 items done" in end.message


def test_only_news_is_passed_on():
    """Thousands of looks at an unchanged GPU job are one word; progress in items is not a word."""
    follower = Follower()
    for done in range(5000):
        follower.notify(a_job(items_done=done))
    follower.leave("over")

    assert follower.next().items_done == 0
    assert follower.next().reason == "over"


def test_a_waiting_task_run_ends_when_the_loop_leaves():
    """The loop may end before the GPU job is seen to be over; its task run must not wait for ever."""
    follower = Follower()
    follower.notify(a_job())
    ends = []
    thread = threading.Thread(target=lambda: ends.append(follow(follower)), daemon=True)
    thread.start()

    follower.leave("the flow run was interrupted")
    thread.join(timeout=5)

    assert [end.name for end in ends] == ["Cancelled"]
    assert ends[0].message == "the flow run was interrupted"


def test_a_log_is_followed_while_the_gpu_job_runs():
    """New lines of the log's end come every ten seconds, each once; its last words come with the end."""
    now = 0.0
    follower = Follower(clock=lambda: now)
    for second in range(31):
        now = float(second)
        follower.notify(a_job(log="".join(f"line {number}\n" for number in range(max(0, second - 20), second))))
    follower.notify(a_job(status="succeeded", log="line 29\nline 30\nthe end"))
    texts = []
    with disable_run_logger(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.gpu_job.get_run_logger", lambda: Told(texts))
        gpu_job.fn("ff-1", follower)

    logs = [text.splitlines()[1:] for text in texts if text.startswith("log from ")]
    assert [line for lines in logs for line in lines] == [*(f"line {number}" for number in range(31)), "the end"]
    assert len(logs) == 4


class Told:
    """A logger that only remembers."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def info(self, text: str, *values: object) -> None:
        self._texts.append(text % values)
