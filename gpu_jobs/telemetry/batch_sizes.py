"""Batch sizes that campaigns have learned, stored beside them for the next campaign.

They are only advice: they may be lost or overwritten.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress

from gpu_jobs.errors import StoreError
from gpu_jobs.store import open_store

_FOLDER = "_learned/"  # never a campaign's name
_DECISIVE = ("device", "model", "engine", "precision")


def recall(campaign_uri: str, facts: Mapping[str, str]) -> int:
    """The batch size that an earlier campaign under this store root learned with the same facts; 0 if there is none."""
    body = None
    with suppress(StoreError):
        body = open_store(_root(campaign_uri)).get(_key(facts))
    return int(json.loads(body)["batch_size"]) if body else 0


def keep(campaign_uri: str, facts: Mapping[str, str], batch_size: int) -> None:
    """Store a batch size for the next campaign; if the store fails, it is not stored."""
    body = json.dumps({"version": 1, "batch_size": batch_size, "facts": dict(facts)})
    with suppress(StoreError):
        open_store(_root(campaign_uri)).put(_key(facts), body.encode())


def _root(campaign_uri: str) -> str:
    return campaign_uri.rpartition("/")[0]


def _key(facts: Mapping[str, str]) -> str:
    """Key of the deciding facts, without the reasons after ": ", which say how much memory was free."""
    decisive = [facts.get(name, "").partition(": ")[0] for name in _DECISIVE]
    return f"{_FOLDER}{hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]}.json"
