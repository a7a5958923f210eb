"""Checks what GPU jobs on Modal need, before any is ordered: `fanfold doctor modal`."""

import asyncio
from collections.abc import Iterator

import modal

from gpu_jobs.errors import PlatformError, RefusedError
from gpu_jobs.platforms.base import Check
from gpu_jobs.platforms.modal.api import open_client, translate
from gpu_jobs.platforms.modal.app import TRY_STORE, content_hash
from gpu_jobs.platforms.modal.deploy import deployed_code
from gpu_jobs.platforms.modal.offers import offers_in
from gpu_jobs.platforms.modal.settings import ModalSettings
from gpu_jobs.store import is_local

_TRY_S = 600.0
"""Seconds given to a container to start, with an image that was never pulled, and to use the bucket."""
_DEPLOY = "run `fanfold deploy modal`"


def checks(store_root: str) -> Iterator[Check]:
    """Check one thing after the other, and leave out what depends on a failed one. Starts a container without GPU."""
    settings = ModalSettings()
    with asyncio.Runner() as runner:
        settings_check = _settings(settings)
        yield settings_check
        if not settings_check.is_ok:
            return
        try:
            client = runner.run(open_client(settings))
            deployed = runner.run(deployed_code(settings, client))
        except (PlatformError, RefusedError) as error:
            yield Check(name="token", is_ok=False, found=str(error), fix="see the message")
            return
        yield Check(name="token", is_ok=True, found="Modal accepts it")
        for name in settings.secrets:
            yield runner.run(_secret(name, client))
        yield _app(settings, deployed)
        if deployed is not None:
            yield runner.run(_store(settings, client, store_root))


def _settings(settings: ModalSettings) -> Check:
    try:
        offers = offers_in(settings)
        content_hash(settings)
    except RefusedError as error:
        return Check(name="settings", is_ok=False, found=str(error), fix=f"correct {error.field}")
    found = ", ".join(f"{offer.num_gpus} x {offer.gpu} at ${offer.usd_per_hour:.2f}/h" for offer in offers)
    return Check(name="settings", is_ok=True, found=found)


async def _secret(name: str, client: modal.Client) -> Check:
    secret = modal.Secret.from_name(name, client=client)
    try:
        with translate(name):
            await secret.hydrate.aio()
    except PlatformError as error:
        fix = f'make it: `modal secret create {name} SERVICE_ACCOUNT_JSON="$(cat key.json)"`'
        return Check(name=f"secret {name}", is_ok=False, found=str(error), fix=fix)
    return Check(name=f"secret {name}", is_ok=True, found="there")


def _app(settings: ModalSettings, deployed: str | None) -> Check:
    name = f"app {settings.app}"
    if deployed is None:
        return Check(name=name, is_ok=settings.deploys, found="not deployed; at first use it is", fix=_DEPLOY)
    if deployed != content_hash(settings):
        return Check(name=name, is_ok=settings.deploys, found="deployed from other code", fix=_DEPLOY)
    return Check(name=name, is_ok=True, found=f"deployed, code {deployed}")


async def _store(settings: ModalSettings, client: modal.Client, store_root: str) -> Check:
    """Try the store from a container, with the credential that GPU workers have."""
    name, fix = f"store {store_root}", "give the secret's account roles/storage.objectUser on the bucket or the prefix"
    if is_local(store_root):
        return Check(name=name, is_ok=False, found="a folder of this machine", fix="use gs://bucket/prefix")
    function = modal.Function.from_name(settings.app, TRY_STORE, client=client)
    try:
        with translate("trying the store"):
            async with asyncio.timeout(_TRY_S):
                problem: str = await function.remote.aio(store_root)
    except PlatformError as error:
        return Check(name=name, is_ok=False, found=str(error), fix=_DEPLOY)
    if problem:
        return Check(name=name, is_ok=False, found=problem, fix=fix)
    return Check(name=name, is_ok=True, found="a container has created, read and deleted an object there")
