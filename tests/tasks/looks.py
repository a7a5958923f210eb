"""Looks at a campaign, as the loop would yield them."""

from gpu_jobs.campaign.progress import JobStatus, Progress
from gpu_jobs.jobs.costs import WorkerSeconds


def a_job(**changed) -> JobStatus:
    return JobStatus(
        **{
            "order": "ff-1",
            "platform": "local",
            "gpu": "cpu",
            "machine": "no GPU",
            "workers": 2,
            "workers_alive": 2,
            "items_done": 0,
            "items_failed": 0,
            "items_per_s": 0.0,
            "gpu_use": "",
            "usd": 0.0,
            "status": "running",
            "reason": "",
            "seconds": WorkerSeconds(),
            "has_lived": False,
            **changed,
        }
    )


def a_look(items_done: int, **changed) -> Progress:
    return Progress(
        **{
            "num_items": 1000,
            "items_done": items_done,
            "items_left": 1000 - items_done,
            "quarantined_items": 0,
            "chunks_left": 10,
            "jobs": (),
            "spent_usd": 0.0,
            "reserved_usd": 0.0,
            "decision": "wait",
            **changed,
        }
    )
