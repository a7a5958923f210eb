"""Each thing that Cloud Run needs, missing once: exactly that line says so, and how to put it right."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from requests.adapters import HTTPAdapter

from gpu_jobs.emulators.cloud_run import CloudRunEmulator, Image
from gpu_jobs.emulators.gcs import GcsEmulator
from gpu_jobs.platforms import doctor
from gpu_jobs.platforms.cloud_run.doctor import PERMISSIONS, checks
from gpu_jobs.testing import MemoryStore
from tests.contracts.cloud_run_bench import cloud_run_settings

IMAGE = "europe-west4-docker.pkg.dev/emulated/fanfold/fanfold"
ACCOUNT = "gpu@emulated.iam.gserviceaccount.com"
STORE = "gs://doctor/campaigns"
QUOTA = "NvidiaL4GpuAllocNoZonalRedundancyPerProjectRegion"
SERVICES = "serviceusage.googleapis.com/v1/projects/emulated/services:batchGet"
RESOURCES = "cloudresourcemanager.googleapis.com/v1/projects/emulated:testIamPermissions"
ACT_AS = f"iam.googleapis.com/v1/projects/-/serviceAccounts/{ACCOUNT}:testIamPermissions"
QUOTAS = (
    f"cloudquotas.googleapis.com/v1/projects/emulated/locations/global/services/run.googleapis.com/quotaInfos/{QUOTA}"
)
CPUS, MEMORY = (QUOTAS.replace(QUOTA, name) for name in ("CpuAllocPerProjectRegion", "MemAllocPerProjectRegion"))
MANIFEST = "europe-west4-docker.pkg.dev/v2/emulated/fanfold/fanfold/manifests/latest"


def services(*enabled):
    known = ("run", "storage", "artifactregistry")
    states = {name: "ENABLED" if name in enabled else "DISABLED" for name in known}
    return {
        "services": [{"name": f"projects/1/services/{name}.googleapis.com", "state": s} for name, s in states.items()]
    }


def quota(value):
    regions = {"us-east4": "7", "europe-west4": value}
    return {
        "dimensionsInfos": [
            {"dimensions": {"region": region}, "details": {"value": limit}, "applicableLocations": [region]}
            for region, limit in regions.items()
        ]
    }


class FakeGoogle:
    """Google's REST services on loopback, all healthy, for a real session; `answers` may be changed."""

    def __init__(self):
        self.answers = {
            RESOURCES: (200, {"permissions": list(PERMISSIONS)}),
            SERVICES: (200, services("run", "storage", "artifactregistry")),
            QUOTAS: (200, quota("3")),
            CPUS: (200, quota("20000")),
            MEMORY: (200, quota(str(40 << 30))),
            MANIFEST: (200, {"schemaVersion": 2}),
            ACT_AS: (200, {"permissions": ["iam.serviceAccounts.actAs"]}),
        }
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.session = AuthorizedSession(AnonymousCredentials())
        self.session.mount("https://", _ToLoopback(self.server.server_address[1]))

    def _handler(self):
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            def _answer(self):
                self.rfile.read(int(self.headers.get("content-length") or 0))
                status, body = answers[self.path.lstrip("/").partition("?")[0]]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            do_GET = do_POST = _answer  # noqa: N815 - names that the server calls

            def log_message(self, *_):
                pass

        return Handler

    def close(self):
        self.session.close()
        self.server.shutdown()
        self.server.server_close()


class _ToLoopback(HTTPAdapter):
    def __init__(self, port):
        super().__init__()
        self.port = port

    def send(self, request, **how):
        request.url = request.url.replace("https://", f"http://127.0.0.1:{self.port}/")
        return super().send(request, **how)


@pytest.fixture
def google():
    fake = FakeGoogle()
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def bucket():
    with GcsEmulator() as gcs:
        gcs.make_bucket("doctor")
        yield gcs


@pytest.fixture
def cloud_run(bucket, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
    with CloudRunEmulator({IMAGE: Image()}) as emulator:
        yield emulator


def settings_of(emulator, **changed):
    known = {"image": IMAGE, "service_account": ACCOUNT, **changed}
    return cloud_run_settings(emulator.grpc_address).model_copy(update=known)


def told(google, emulator, store=STORE, **changed):
    return {check.name: check for check in checks(store, settings_of(emulator, **changed), google.session)}


def test_where_nothing_is_missing_all_is_well_and_nothing_is_left_behind(google, cloud_run, bucket):
    found = told(google, cloud_run)

    assert [check.name for check in found.values() if not check.is_ok] == []
    assert [*found] == [
        "settings",
        "permissions",
        "services",
        "quota of nvidia-l4",
        "quota of CPUs for nvidia-l4",
        "quota of memory for nvidia-l4",
        "image",
        "service account",
        "a GPU job on trial",
        "store",
    ]
    assert found["quota of nvidia-l4"].found == "3 at once in europe-west4"
    assert found["quota of CPUs for nvidia-l4"].found == "5 at once in europe-west4"
    assert found["quota of memory for nvidia-l4"].found == "2 at once in europe-west4"
    assert cloud_run.world.jobs == {}
    assert bucket.requests[-1].startswith("DELETE")


@pytest.mark.parametrize(
    ("url", "status", "body", "line", "found", "fix"),
    [
        (RESOURCES, 200, {"permissions": PERMISSIONS[1:]}, "permissions", "run.jobs.create", "roles/run.developer"),
        (RESOURCES, 403, {"error": {"message": "API off"}}, "permissions", "403 API off", "gcloud services enable"),
        (
            SERVICES,
            200,
            services("storage", "artifactregistry"),
            "services",
            "run.googleapis.com is off",
            "enable run.",
        ),
        (SERVICES, 403, {"error": {"message": "No"}}, "services", "403 No", "serviceUsageViewer"),
        (QUOTAS, 200, quota("0"), "quota of nvidia-l4", "0 at once", QUOTA),
        (CPUS, 200, quota("3999"), "quota of CPUs for nvidia-l4", "0 at once", "CpuAllocPerProjectRegion"),
        (MEMORY, 200, quota("1"), "quota of memory for nvidia-l4", "0 at once", "MemAllocPerProjectRegion"),
        (QUOTAS, 403, {"error": {"message": "No"}}, "quota of nvidia-l4", "403 No", "cloudquotas.viewer"),
        (MANIFEST, 404, {"errors": [{"message": "no such image"}]}, "image", "404 no such image", "push"),
        (ACT_AS, 404, {"error": {"message": "Unknown"}}, "service account", "404 Unknown", "Create it"),
        (ACT_AS, 200, {}, "service account", "may not", "roles/iam.serviceAccountUser"),
    ],
)
def test_what_google_says_is_missing_is_one_line(google, cloud_run, *, url, status, body, line, found, fix):
    google.answers[url] = (status, body)

    missing = [check for check in told(google, cloud_run).values() if not check.is_ok]

    assert [check.name for check in missing] == [line]
    assert found in missing[0].found
    assert fix in missing[0].fix


def test_a_service_that_does_not_answer_is_not_known(google, cloud_run):
    google.server.shutdown()
    google.server.server_close()

    found = told(google, cloud_run)

    assert not found["services"].is_ok
    assert "no answer" in found["services"].found


@pytest.mark.parametrize(
    ("change", "told_what"),
    [
        ({"denied": {"run.jobs.create"}}, "permission run.jobs.create is missing"),
        ({"projects": set()}, "there is no such project"),
        ({"gpu_quota": {"nvidia-l4": 0}}, "quota"),
        ({"images": {}}, "not found"),
    ],
)
def test_what_the_service_refuses_is_refused_on_trial(google, cloud_run, change, told_what):
    for knob, value in change.items():
        setattr(cloud_run.world, knob, value)

    missing = [check for check in told(google, cloud_run).values() if not check.is_ok]

    assert [check.name for check in missing] == ["a GPU job on trial"]
    assert told_what in missing[0].found


@pytest.mark.parametrize(
    ("setting", "value", "found"),
    [
        ("project", "", "FANFOLD_CLOUD_RUN_PROJECT is not set"),
        ("image", "", "FANFOLD_CLOUD_RUN_IMAGE is not set"),
        ("region", "us-central1", "us-central1 has no nvidia-l4; use nvidia-l4 in asia-southeast1"),
    ],
)
def test_without_settings_only_the_store_is_looked_at(google, cloud_run, setting, value, found):
    checked = told(google, cloud_run, **{setting: value})

    assert [*checked] == ["settings", "store"]
    assert found in checked["settings"].found
    assert checked["store"].is_ok


@pytest.mark.parametrize(
    ("store", "found"),
    [
        ("gs://absent/campaigns", "bucket 'absent' does not exist"),
        ("./fanfold-store", "a folder of this machine"),
        ("s3://elsewhere", "neither a folder nor gs://"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line(google, cloud_run, store, found):
    missing = [check for check in told(google, cloud_run, store).values() if not check.is_ok]

    assert [check.name for check in missing] == ["store"]
    assert found in missing[0].found


def test_a_store_without_conditional_writes_is_told(google, cloud_run, monkeypatch):
    """As some emulators and S3 look-alikes are."""

    class Careless(MemoryStore):
        def create(self, *_):
            return True

    monkeypatch.setattr(doctor, "open_store", lambda _: Careless())

    assert "lets a second writer overwrite" in told(google, cloud_run)["store"].found


def test_without_credentials_nothing_else_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    settings = cloud_run_settings("").model_copy(update={"image": IMAGE})

    *_, last = checks(STORE, settings)

    assert last.name == "credentials"
    assert re.search("absent.json was not found", last.found)
    assert "gcloud auth application-default login" in last.fix
