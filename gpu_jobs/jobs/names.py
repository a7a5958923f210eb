"""Names of GPU jobs. The reaper recognizes our GPU jobs by these prefixes."""

import hashlib


def root_prefix(store_root: str) -> str:
    """Return the prefix of the names of all GPU jobs under one store root; the reaper touches nothing else."""
    return f"ff-{hashlib.sha256(store_root.rstrip('/').encode()).hexdigest()[:8]}"


def order_prefix(campaign_uri: str) -> str:
    """Return the prefix of the names of all GPU jobs of one campaign."""
    root, _, name = campaign_uri.rpartition("/")
    return f"{root_prefix(root)}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
