"""Batch sizes that campaigns have learned, kept beside them for the next: advice, which may be lost or overwritten."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress

from gpu_jobs.errors import StoreError
from gpu_jobs.store import open_store

_FOLDER = "_learned/"  # never a campaign's name
_DECISIVE = ("device", "model", "engine", "precision")


def recall(campaign_uri: str, facts: Mapping[str, str]) -> int:
    """What an earlier campaign under the same store root has settled for, with the same facts; 0 if none has."""
    body = None
    with suppress(StoreError):
        body = open_store(_root(campaign_uri)).get(_key(facts))
    return int(json.loads(body)["batch_size"]) if body else 0


def keep(campaign_uri: str, facts: Mapping[str, str], batch_size: int) -> None:
    """Keep it for the next campaign."""
    body = json.dumps({"version": 1, "batch_size": batch_size, "facts": dict(facts)})
    with suppress(StoreError):
        open_store(_root(campaign_uri)).put(_key(facts), body.encode())


def _root(campaign_uri: str) -> str:
    return campaign_uri.rpartition("/")[0]


def _key(facts: Mapping[str, str]) -> str:
    """Without the reasons, which name how much memory was free."""
    decisive = [facts.get(name, "").partition(": ")[0] for name in _DECISIVE]
    return f"{_FOLDER}{hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]}.json"
