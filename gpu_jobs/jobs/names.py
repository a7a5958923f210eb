"""Names of GPU jobs, by which the reaper knows what is ours."""

import hashlib


def root_prefix(store_root: str) -> str:
    """What the names of all GPU jobs under one store root begin with; the reaper touches nothing else."""
    return f"ff-{hashlib.sha256(store_root.rstrip('/').encode()).hexdigest()[:8]}"


def order_prefix(campaign_uri: str) -> str:
    """What the names of all GPU jobs of one campaign begin with."""
    root, _, name = campaign_uri.rpartition("/")
    return f"{root_prefix(root)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
