"""Puts the key of a Google service account, which comes as a secret, into the file that Google's clients read."""

import os
import tempfile
from collections.abc import Mapping

ACCOUNT = "SERVICE_ACCOUNT_JSON"
"""Environment variable that holds the key on platforms whose machines have no Google account of their own."""


def with_google_account(environ: Mapping[str, str]) -> dict[str, str]:
    """A copy of the environment in which the key is replaced by the path of a file that holds it."""
    changed = dict(environ)
    if key := changed.pop(ACCOUNT, ""):
        path = f"{tempfile.gettempdir()}/fanfold-google-account.json"
        with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(key)
        changed["GOOGLE_APPLICATION_CREDENTIALS"] = path
    return changed
