"""The key of a Google service account, as a secret's value, put where Google's clients look for it: in a file."""

import os
import tempfile
from collections.abc import Mapping

ACCOUNT = "SERVICE_ACCOUNT_JSON"
"""Environment variable that holds the key, on every platform whose machines have no Google account of their own."""


def with_google_account(environ: Mapping[str, str]) -> dict[str, str]:
    """The same environment, with a file of this container's in place of the key."""
    changed = dict(environ)
    if key := changed.pop(ACCOUNT, ""):
        path = f"{tempfile.gettempdir()}/fanfold-google-account.json"
        with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(key)
        changed["GOOGLE_APPLICATION_CREDENTIALS"] = path
    return changed
