"""Flows as commands."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import psutil
import pytest
from prefect.settings import PREFECT_API_URL

from flows.batch_inference import BatchInference, batch_inference
from flows.command_line import main
from gpu_jobs.campaign.campaign import Campaign
from tests.flows.prefect_records import task_runs_of_flow
from tests.flows.small_flows import NoopCampaign, noop
from tests.project import ROOT

SLOW = ["--params.sleep-s", "0.5", "--name", "slow"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_help_is_quick_and_light(tmp_path):
    """Help costs less than five seconds of CPU, imports no torch and starts no server."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    shown = run("-X", "importtime", "-m", "flows.video_analysis", "--help", PREFECT_HOME=str(tmp_path))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert shown.returncode == 0
    for flag in ("--dataset", "--params.segment-s", "--max-workers", "--budget-usd", "--deadline", "--lease-timeout-s"):
        assert flag in shown.stdout
    assert "| torch\n" not in shown.stderr
    assert not list(tmp_path.glob("*.db"))
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--budget-usd", "-1"], "refused: budget_usd: it is -1.0; it cannot be negative\n"),
        (["--max-workers", "many"], "refused: limits.max_workers: Input should be a valid integer"),
        (["--params.sleep-s", "-1"], "refused: params.sleep_s: "),
        (["--platforms", "modal"], "refused: store_root: './fanfold-store' is a folder of this machine"),
    ],
)
def test_a_refusal_is_one_line(capsys, items, arguments, line):
    """What can be refused by looking at the request is, before Prefect starts: one line, exit code 2."""
    code = main(noop, NoopCampaign, ["--dataset", items, *arguments])

    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith(line)
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["model", "draft_model"])
def test_a_model_that_is_not_on_this_machine_is_refused_in_a_line(capsys, name):
    """Where GPU workers run here too; a cloud's may have the folder."""
    flag = f"--params.{name.replace('_', '-')}"
    code = main(batch_inference, BatchInference, ["--dataset", "demo", flag, "./no-such-folder"])

    assert code == 2
    told = f"refused: params.{name}: model './no-such-folder' is no folder of this machine; check the path\n"
    assert capsys.readouterr().err == told
    elsewhere = BatchInference(
        dataset="gs://b/t.csv", params={"model": "/mnt/model"}, where={"platforms": ["modal"], "store_root": "gs://b"}
    )
    assert elsewhere.spec(datetime.now(UTC)).params["model"] == "/mnt/model"


def test_a_refusal_by_the_flow_is_told_in_the_last_line(prefect_api, capsys, tmp_path):
    """What only a look at the dataset shows ends with the same line and the same code."""
    code = main(noop, NoopCampaign, ["--dataset", "no-such", "--store-root", str(tmp_path / "store")])

    assert code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("refused: dataset: ")


def test_a_command_prints_the_summary(prefect_api, capsys, items, tmp_path):
    """Flags reach the campaign; the summary goes to stdout, a name and a value a line."""
    arguments = ["--dataset", items, "--store-root", str(tmp_path / "store"), "--params.rows-per-item", "2"]

    assert main(noop, NoopCampaign, [*arguments, "--name", "printed", "--max-workers", "1"]) == 0

    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert said["campaign"] == str(tmp_path / "store" / "printed")
    assert said["num_committed"] == "40"
    assert Campaign.open(said["campaign"]).plan.params["rows_per_item"] == 2


Interrupt = Callable[..., tuple[int, float, list[int]]]


@pytest.fixture
def interrupt(items, tmp_path) -> Interrupt:
    """Start the noop flow as a command, send it a signal while GPU workers work; say how and when it ended.

    Returns:
        Exit code, seconds between the signal and the end, and which of its descendants are still alive after it.
    """

    def interrupted(
        signum: signal.Signals, arguments: Sequence[str], **environment: str
    ) -> tuple[int, float, list[int]]:
        command = [sys.executable, "-m", "tests.flows.small_flows", "--dataset", items]
        with (tmp_path / "said.txt").open("w") as said:
            process = subprocess.Popen(
                [*command, "--store-root", str(tmp_path / "store"), *arguments],
                env={**os.environ, **environment},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            while not list((tmp_path / "store").glob("*/attempts/*")) and process.poll() is None:
                time.sleep(0.1)
            below = psutil.Process(process.pid).children(recursive=True)
            sent_at = time.monotonic()
            if signum == signal.SIGINT:
                os.killpg(process.pid, signum)  # as a terminal does: its whole group
            else:
                process.send_signal(signum)
            code = process.wait(timeout=60)
        took_s = time.monotonic() - sent_at
        _, alive = psutil.wait_procs(below, timeout=5)
        return code, took_s, [each.pid for each in alive]

    return interrupted


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_flow_stops_its_gpu_jobs_within_the_grace(prefect_api, interrupt, tmp_path, signum):
    """A signal closes the campaign, ends its GPU workers and its task runs, and leaves it resumable."""
    code, took_s, alive = interrupt(signum, SLOW, PREFECT_API_URL=PREFECT_API_URL.value())

    assert code == {signal.SIGTERM: 143, signal.SIGINT: 130}[signum]
    assert took_s < 25
    assert alive == []
    journal = Campaign.open(str(tmp_path / "store" / "slow")).journal.read()
    assert "interrupted by" in journal.closed.reason
    assert not journal.live_orders
    (order,) = journal.orders
    (followed,) = task_runs_of_flow("noop", name=order)
    assert followed.state.is_cancelled()
    assert "interrupted" in followed.state.message


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_command_leaves_no_server_behind(interrupt, tmp_path, signum):
    """Prefect's temporary server ends with the command, also when a signal ends that."""
    code, _, alive = interrupt(signum, SLOW, PREFECT_HOME=str(tmp_path / "prefect"))

    assert code in (143, 130)
    assert alive == []
    said = (tmp_path / "said.txt").read_text()
    assert "Finished in state Crashed" in said
    assert "Traceback" not in said


def test_prefect_settings_hold_in_any_folder(tmp_path):
    """A patient start of the temporary server and no telemetry, without this repository's pyproject.toml."""
    code = (
        "import json, os, flows.video_analysis; from prefect.settings import get_current_settings as now;"
        "print(json.dumps([now().server.ephemeral.startup_timeout_seconds, now().server.analytics_enabled,"
        "now().logging.extra_loggers, os.environ['DO_NOT_TRACK']]))"
    )
    root = str(ROOT)
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": root},
        capture_output=True,
        check=True,
    )

    assert json.loads(found.stdout) == [120, False, ["gpu_jobs"], "1"]
