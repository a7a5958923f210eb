"""What GPU jobs on Cloud Run need, checked before any is ordered: `fanfold doctor cloud_run`.

It starts nothing; it writes one small object into the store and deletes it. It cannot see whether the service account
of GPU workers may use the bucket, nor whether a GPU is free just now.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import google.auth
import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import run_v2

from gpu_jobs.errors import NoCapacityError, PlatformError, RefusedError
from gpu_jobs.jobs.orders import Order
from gpu_jobs.platforms.base import Check
from gpu_jobs.platforms.cloud_run.api import open_clients, translate
from gpu_jobs.platforms.cloud_run.jobs import job_resource, offers_in, shape
from gpu_jobs.platforms.cloud_run.settings import CloudRunSettings
from gpu_jobs.platforms.doctor import MissingError, check, try_store

PERMISSIONS = (
    *(f"run.jobs.{verb}" for verb in ("create", "delete", "get", "list", "run")),
    *(f"run.executions.{verb}" for verb in ("cancel", "get", "list")),
    "run.operations.get",
    "run.tasks.list",
)
"""Permissions that the orchestrator needs in the project."""
_QUOTAS = {
    "nvidia-l4": "NvidiaL4GpuAllocNoZonalRedundancyPerProjectRegion",
    "nvidia-rtx-pro-6000": "NvidiaRtxPro6000GpuAllocNoZonalRedundancyPerProjectRegion",
}
_SHARED_QUOTAS = ("CpuAllocPerProjectRegion", "MemAllocPerProjectRegion")
"""Quotas of all that runs in the region, in thousandths of a CPU and in bytes: 20 CPUs and 40 GiB in a new project."""
_MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT_S = 30.0


def checks(
    store_root: str, settings: CloudRunSettings | None = None, session: requests.Session | None = None
) -> Iterator[Check]:
    """Check one thing after the other; what depends on something that is missing is left out.

    Args:
        store_root: where campaigns are to be kept.
        settings: the orchestrator's; None: read from the environment.
        session: asks Google's REST services; None: made with this machine's credentials. With an emulator there is
            none, and what only those services know is not checked.
    """
    settings = settings or CloudRunSettings()
    configured = check("settings", lambda: _settings(settings))
    yield configured
    if session is None and not settings.emulator:
        session = AuthorizedSession(None)
        login = check("credentials", lambda: _log_in(session))
        yield login
        if not login.is_ok:
            return
    if configured.is_ok:
        if session is not None:
            yield from _asked_of_google(settings, session)
        yield check("a GPU job on trial", lambda: _trial(settings))
    yield check("store", lambda: try_store(store_root))


def _settings(settings: CloudRunSettings) -> str:
    for field in ("project", "image"):
        if not getattr(settings, field):
            name = f"FANFOLD_CLOUD_RUN_{field.upper()}"
            raise MissingError(f"{name} is not set", f"Run `export {name}=…`")
    try:
        offers = offers_in(settings)
    except RefusedError as error:
        raise MissingError(str(error)) from error
    return f"{' or '.join(offer.gpu for offer in offers)} in {settings.region}"


def _log_in(session: AuthorizedSession) -> str:
    try:
        session.credentials, _ = google.auth.default(scopes=[_SCOPE])
        session.credentials.refresh(Request())
    except GoogleAuthError as error:
        fix = "Run `gcloud auth application-default login`, or give a service account"
        raise MissingError(_first_line(error), fix) from error
    return getattr(session.credentials, "service_account_email", "") or "of a user"


def _asked_of_google(settings: CloudRunSettings, session: requests.Session) -> Iterator[Check]:
    """Checks for which Google's REST services must be asked."""
    yield check("permissions", lambda: _permissions(settings, session))
    yield check("services", lambda: _services(settings, session))
    for offer in offers_in(settings):
        cpus, memory_gib = shape(offer.gpu)
        of_one = dict(zip(_SHARED_QUOTAS, (cpus * 1000, memory_gib << 30), strict=True))
        for quota, needed in {_QUOTAS[offer.gpu]: 1, **of_one}.items():
            words = {_SHARED_QUOTAS[0]: "CPUs for ", _SHARED_QUOTAS[1]: "memory for "}.get(quota, "")
            yield check(f"quota of {words}{offer.gpu}", partial(_quota, settings, session, quota, needed))
    if re.match(r"[a-z0-9-]+-docker\.pkg\.dev/", settings.image):
        images = {offer.image(settings.image) for offer in offers_in(settings)}
        for image in sorted(images):
            yield check("image", partial(_image, image, session))
    yield check("service account", lambda: _service_account(settings, session))


def _permissions(settings: CloudRunSettings, session: requests.Session) -> str:
    project = settings.project
    answer = _ask(
        session,
        f"https://cloudresourcemanager.googleapis.com/v1/projects/{project}:testIamPermissions",
        {"permissions": PERMISSIONS},
        fix="Correct FANFOLD_CLOUD_RUN_PROJECT, or run `gcloud services enable cloudresourcemanager.googleapis.com`",
    )
    held = answer.get("permissions", [])
    if missing := [each for each in PERMISSIONS if each not in held]:
        raise MissingError(f"in {project}: {', '.join(missing)}", "Grant roles/run.developer to the orchestrator")
    return f"to create, run, watch and cancel jobs in {project}"


def _services(settings: CloudRunSettings, session: requests.Session) -> str:
    project = f"projects/{settings.project}"
    wanted = ["run", "storage", "artifactregistry", *(["secretmanager"] if settings.secrets else [])]
    names = "&".join(f"names={project}/services/{each}.googleapis.com" for each in wanted)
    answer = _ask(
        session,
        f"https://serviceusage.googleapis.com/v1/{project}/services:batchGet?{names}",
        fix="To see them, whoever asks needs roles/serviceusage.serviceUsageViewer",
    )
    enabled = {each["name"].rpartition("/")[2] for each in answer.get("services", []) if each.get("state") == "ENABLED"}
    if missing := [f"{each}.googleapis.com" for each in wanted if f"{each}.googleapis.com" not in enabled]:
        fix = f"Run `gcloud services enable {' '.join(missing)} --project {settings.project}`"
        raise MissingError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} off", fix)
    return f"{', '.join(wanted)} are on"


def _quota(settings: CloudRunSettings, session: requests.Session, quota: str, needed: int) -> str:
    """How many GPU workers a quota allows at once, each of which takes `needed` of it."""
    project, region = settings.project, settings.region
    page = _quota_page(settings)
    answer = _ask(
        session,
        f"https://cloudquotas.googleapis.com/v1/projects/{project}/locations/global/services/run.googleapis.com"
        f"/quotaInfos/{quota}",
        fix=f"Enable cloudquotas.googleapis.com and grant roles/cloudquotas.viewer, or look for {quota} at {page}",
    )
    limits = [
        int(each.get("details", {}).get("value", 0))
        for each in answer.get("dimensionsInfos", [])
        if each.get("dimensions", {}).get("region") == region or region in each.get("applicableLocations", [])
    ]
    if not limits or 0 <= limits[0] < needed:
        raise MissingError(f"0 at once in {region}", f"Ask for more of {quota} at {page}")
    return f"{'any number' if limits[0] < 0 else limits[0] // needed} at once in {region}"


def _image(image: str, session: requests.Session) -> str:
    host, _, path = image.partition("/")
    path, _, digest = path.partition("@")
    path, _, tag = path.partition(":")
    _ask(
        session,
        f"https://{host}/v2/{path}/manifests/{digest or tag or 'latest'}",
        accept=_MANIFESTS,
        fix="Build and push it, correct FANFOLD_CLOUD_RUN_IMAGE, or grant roles/artifactregistry.reader",
    )
    return image


def _service_account(settings: CloudRunSettings, session: requests.Session) -> str:
    account = settings.service_account
    if not account:
        return "FANFOLD_CLOUD_RUN_SERVICE_ACCOUNT is not set: GPU workers get the project's default one and its rights"
    answer = _ask(
        session,
        f"https://iam.googleapis.com/v1/projects/-/serviceAccounts/{account}:testIamPermissions",
        {"permissions": ["iam.serviceAccounts.actAs"]},
        fix="Create it, or correct FANFOLD_CLOUD_RUN_SERVICE_ACCOUNT",
    )
    if not answer.get("permissions"):
        fix = "Grant roles/iam.serviceAccountUser on it to the orchestrator"
        raise MissingError(f"we may not start containers as {account}", fix)
    return f"{account}; whether it may use the bucket cannot be seen from here"


def _trial(settings: CloudRunSettings) -> str:
    """Let the service validate a GPU job without creating it; what it looks at is not documented."""
    offer, now = offers_in(settings)[0], datetime.now(UTC)
    order = Order(
        name="fanfold-doctor",
        campaign_uri="gs://nowhere",
        offer=offer,
        num_workers=1,
        expires_at=now + timedelta(hours=1),
        reserved_usd=0.0,
    )
    parent = f"projects/{settings.project}/locations/{settings.region}"
    job = job_resource(order, settings, now)
    request = run_v2.CreateJobRequest(parent=parent, job_id=order.name, job=job, validate_only=True)

    async def create() -> None:
        clients = open_clients(settings.emulator)
        with translate("run.jobs.create", parent):
            await clients.jobs.create_job(request, timeout=_TIMEOUT_S, retry=None)

    try:
        asyncio.run(create())
    except NoCapacityError as error:
        raise MissingError(str(error), f"See {_quota_page(settings)}") from error
    except (PlatformError, RefusedError) as error:
        raise MissingError(str(error)) from error
    return f"accepted on {offer.gpu}; nothing was created"


def _ask(
    session: requests.Session, url: str, body: Mapping[str, Any] | None = None, *, accept: str = "*/*", fix: str
) -> Any:
    """The JSON of the answer.

    Raises:
        MissingError: with the service's message, if it refuses or does not answer.
    """
    verb = "GET" if body is None else "POST"
    try:
        reply = session.request(verb, url, json=body, headers={"accept": accept}, timeout=_TIMEOUT_S)
    except (requests.RequestException, GoogleAuthError) as error:
        raise MissingError(f"no answer: {_first_line(error)}", fix) from error
    if reply.ok:
        return reply.json()
    try:
        answer = reply.json()
        message = answer["error"]["message"] if "error" in answer else answer["errors"][0]["message"]
    except (ValueError, LookupError, TypeError):
        message = reply.reason
    raise MissingError(f"{reply.status_code} {_first_line(message)}", fix)


def _quota_page(settings: CloudRunSettings) -> str:
    return f"https://console.cloud.google.com/iam-admin/quotas?project={settings.project}"


def _first_line(text: object) -> str:
    return (str(text).strip().splitlines() or [type(text).__name__])[0][:300]
