"""What pods and serverless endpoints share: their names, and the environment of GPU workers."""

import re
from dataclasses import dataclass

from gpu_jobs.platforms.runpod.settings import RunPodSettings

VOLUME_PATH = "/runpod-volume"
"""Folder where serverless workers find a network volume; pods mount it there too."""
_NAME = re.compile(r"(?P<order>.+)-w(?P<first>\d+)-(?P<last>\d+)-t(?P<deadline>\d+)")


@dataclass(frozen=True, slots=True)
class Name:
    """The parsed name of one of our pods or serverless endpoints: its order, its slots and its deadline."""

    order: str
    first_slot: int
    last_slot: int
    deadline: int
    """Unix time in seconds."""

    @classmethod
    def parse(cls, name: str) -> "Name | None":
        """The parts of a name; None if Fanfold did not make it."""
        found = _NAME.fullmatch(name)
        return found and cls(found["order"], int(found["first"]), int(found["last"]), int(found["deadline"]))

    @property
    def num_workers(self) -> int:
        return self.last_slot - self.first_slot + 1

    def __str__(self) -> str:
        return f"{self.order}-w{self.first_slot}-{self.last_slot}-t{self.deadline}"


def environment(settings: RunPodSettings) -> dict[str, str]:
    """Environment variables of GPU workers; secrets are references that RunPod resolves."""
    secrets = {name: f"{{{{ RUNPOD_SECRET_{secret} }}}}" for name, secret in settings.secrets.items()}
    return {**settings.env, **secrets}
