"""What automations can act on."""

import pytest

from tasks.events import Events
from tests.tasks.looks import a_job, a_look


class World:
    """Events emitted into a list, on a clock that a test moves."""

    def __init__(self, budget_usd: float | None = None) -> None:
        self.now = 0.0
        self.emitted: list[tuple[str, dict]] = []
        self.events = Events("gs://b/store/c", budget_usd, emit=self._emit, clock=lambda: self.now)

    def _emit(self, event, *, resource, payload):
        assert resource["prefect.resource.id"] == "fanfold.campaign.c"
        assert resource["fanfold.campaign.uri"] == "gs://b/store/c"
        self.emitted.append((event.removeprefix("fanfold."), payload))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.emitted]


def test_a_gpu_job_starts_and_ends_once():
    """However often it is looked at; it starts when it runs, not when it is ordered."""
    world = World()
    for job in [a_job(status="pending")] * 2 + [a_job()] * 3 + [a_job(status="failed", reason="killed", usd=0.5)] * 2:
        world.events.report(a_look(1, jobs=(job,)))

    assert world.names == ["gpu_job.started", "gpu_job.ended"]
    assert world.emitted[0][1] == {"order": "ff-1", "platform": "local", "machine": "no GPU", "workers": 2}
    assert {"status": "failed", "reason": "killed", "usd": 0.5, "items_done": 0}.items() <= world.emitted[1][1].items()


@pytest.mark.parametrize(
    ("has_lived", "names"), [(False, ["gpu_job.ended"]), (True, ["gpu_job.started", "gpu_job.ended"])]
)
def test_a_gpu_job_that_was_over_at_the_first_look(has_lived, names):
    """It has started only if some GPU worker of it has lived."""
    world = World()

    world.events.report(a_look(1, jobs=(a_job(status="failed", has_lived=has_lived),)))

    assert world.names == names


def test_quarantined_items_are_told_once_a_minute():
    """Thousands a minute are one event with their number; the last look leaves none untold."""
    world = World()
    for second in range(150):
        world.now = float(second)
        world.events.report(a_look(1, quarantined_items=10 * second))
    world.events.report(a_look(1, quarantined_items=1495), is_last=True)

    payloads = [payload for name, payload in world.emitted if name == "chunk.quarantined"]
    assert [payload["items"] for payload in payloads] == [10, 600, 600, 285]
    assert payloads[-1]["items_so_far"] == 1495


def test_what_was_quarantined_before_is_no_news():
    """A flow run that resumes a campaign does not report what an earlier one has reported."""
    world = World()
    for total in (7, 7, 9):
        world.events.report(a_look(1, quarantined_items=total))

    assert [payload["items"] for _, payload in world.emitted] == [2]


def test_a_near_budget_is_told_once():
    """From four fifths on; without a budget nothing is near."""
    world, unlimited = World(budget_usd=10.0), World()
    for spent_usd in (7.9, 8.0, 9.5):
        world.events.report(a_look(1, spent_usd=spent_usd))
        unlimited.events.report(a_look(1, spent_usd=spent_usd))

    assert world.emitted == [("budget.near", {"budget_usd": 10.0, "spent_usd": 8.0})]
    assert unlimited.emitted == []


def test_a_close_says_why_and_what_is_left():
    """Also if the flow was interrupted before its first look."""
    world = World()

    world.events.closed("the deadline has passed", a_look(400, spent_usd=1.5))
    world.events.closed("interrupted by KeyboardInterrupt", None)

    assert world.emitted == [
        (
            "campaign.closed",
            {
                "reason": "the deadline has passed",
                "is_complete": False,
                "num_items": 1000,
                "items_left": 600,
                "quarantined_items": 0,
                "spent_usd": 1.5,
            },
        ),
        ("campaign.closed", {"reason": "interrupted by KeyboardInterrupt", "is_complete": False}),
    ]
