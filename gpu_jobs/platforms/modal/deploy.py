"""Deploys the Modal app, if its content hash has changed or if asked to."""

import asyncio

import modal

from gpu_jobs.errors import RejectedError
from gpu_jobs.platforms.modal.api import AbsentError, open_client, translate
from gpu_jobs.platforms.modal.app import CODE_TAG, build_app, content_hash
from gpu_jobs.platforms.modal.settings import ModalSettings

_COMMAND = "run `fanfold deploy modal`"


def deploy(settings: ModalSettings | None = None) -> str:
    """Deploy the app and return a message for a person. GPU jobs that are running finish on the old version.

    Raises:
        RefusedError: a setting is wrong.
        PlatformError: Modal refuses, or does not answer.
    """
    settings = settings or ModalSettings()

    async def now() -> None:
        await _deploy(settings, await open_client(settings))

    asyncio.run(now())
    return f"the Modal app '{settings.app}' is deployed, code {content_hash(settings)}"


async def deploy_once(settings: ModalSettings, client: modal.Client) -> None:
    """Deploy the app if it is not deployed, or was deployed from other code.

    Raises:
        RejectedError: it must be deployed but the setting `deploys` is false; or Modal refuses.
    """
    deployed, wanted = await deployed_code(settings, client), content_hash(settings)
    if deployed == wanted:
        return
    if not settings.deploys:
        what = "is not deployed" if deployed is None else f"was deployed from other code ({deployed}, here {wanted})"
        raise RejectedError(f"the Modal app '{settings.app}' {what}: {_COMMAND}")
    await _deploy(settings, client)


async def deployed_code(settings: ModalSettings, client: modal.Client) -> str | None:
    """The content hash of the deployed app, "" if it has no such tag; None if there is no such app."""
    try:
        with translate(f"looking for the app '{settings.app}'"):
            app = await modal.App.lookup.aio(settings.app, client=client)
            tags = await app.get_tags.aio(client=client)
    except AbsentError:
        return None
    return tags.get(CODE_TAG, "")


async def _deploy(settings: ModalSettings, client: modal.Client) -> None:
    """Deploy. This may take minutes: Modal builds the image if its packages have changed."""
    with translate(f"deploying the app '{settings.app}'"):
        await build_app(settings).deploy.aio(client=client)
