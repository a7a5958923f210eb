"""Deploying the Modal app, by the hash of its content."""

import asyncio

import modal

from gpu_jobs.errors import RejectedError
from gpu_jobs.platforms.modal.api import AbsentError, open_client, translate
from gpu_jobs.platforms.modal.app import CODE_TAG, build_app, content_hash
from gpu_jobs.platforms.modal.settings import ModalSettings

_COMMAND = "run `fanfold deploy modal`"


def deploy(settings: ModalSettings | None = None) -> str:
    """Deploy the app, whatever is deployed; return a sentence for a person. GPU jobs at work finish on the old one.

    Raises:
        RefusedError: a setting is wrong.
        PlatformError: Modal said no.
    """
    settings = settings or ModalSettings()

    async def now() -> None:
        await _deploy(settings, await open_client(settings))

    asyncio.run(now())
    return f"the Modal app '{settings.app}' is deployed, code {content_hash(settings)}"


async def deploy_once(settings: ModalSettings, client: modal.Client) -> None:
    """Deploy the app if it is not, or was from other code.

    Raises:
        RejectedError: it would have to, and the setting `deploys` forbids it; or Modal refuses.
    """
    deployed, wanted = await deployed_code(settings, client), content_hash(settings)
    if deployed == wanted:
        return
    if not settings.deploys:
        what = "is not deployed" if deployed is None else f"was deployed from other code ({deployed}, here {wanted})"
        raise RejectedError(f"the Modal app '{settings.app}' {what}: {_COMMAND}")
    await _deploy(settings, client)


async def deployed_code(settings: ModalSettings, client: modal.Client) -> str | None:
    """The content hash of the deployed app, "" if it tells none; None if there is no such app."""
    try:
        with translate(f"looking for the app '{settings.app}'"):
            app = await modal.App.lookup.aio(settings.app, client=client)
            tags = await app.get_tags.aio(client=client)
    except AbsentError:
        return None
    return tags.get(CODE_TAG, "")


async def _deploy(settings: ModalSettings, client: modal.Client) -> None:
    """May take minutes: the image is built when its packages have changed."""
    with translate(f"deploying the app '{settings.app}'"):
        await build_app(settings).deploy.aio(client=client)
