"""What pods and serverless endpoints of a GPU job have in common: names, and what GPU workers find in them."""

import re
from dataclasses import dataclass

from gpu_jobs.platforms.runpod.settings import RunPodSettings

VOLUME_PATH = "/runpod-volume"
"""Where serverless workers find a network volume; pods get it at the same place."""
_NAME = re.compile(r"(?P<order>.+)-w(?P<first>\d+)-(?P<last>\d+)-t(?P<deadline>\d+)")


@dataclass(frozen=True, slots=True)
class Name:
    """What the name of a pod or a serverless endpoint of ours tells: whose it is, and until when."""

    order: str
    first_slot: int
    last_slot: int
    deadline: int
    """Unix seconds."""

    @classmethod
    def parse(cls, name: str) -> "Name | None":
        """None for what is not ours."""
        found = _NAME.fullmatch(name)
        return found and cls(found["order"], int(found["first"]), int(found["last"]), int(found["deadline"]))

    @property
    def num_workers(self) -> int:
        return self.last_slot - self.first_slot + 1

    def __str__(self) -> str:
        return f"{self.order}-w{self.first_slot}-{self.last_slot}-t{self.deadline}"


def environment(settings: RunPodSettings) -> dict[str, str]:
    """What GPU workers find in their environment; secrets by RunPod's reference only."""
    secrets = {name: f"{{{{ RUNPOD_SECRET_{secret} }}}}" for name, secret in settings.secrets.items()}
    return {**settings.env, **secrets}
