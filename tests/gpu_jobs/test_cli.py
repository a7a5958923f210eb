"""The command `fanfold`, as a person types it."""

import re
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import psutil
import pytest

from gpu_jobs import cli
from gpu_jobs.emulators import rehearse

FANFOLD = [sys.executable, "-m", "gpu_jobs.cli"]
ON_A_TERMINAL = [
    sys.executable,
    "-c",
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))",
]
PUT = "from gpu_jobs.store import open_store; print(open_store('gs://rehearsal/x').create('a', b'{}'))"
ENDING = """
import signal, sys, time
from gpu_jobs.store import open_store
seen = []
for signum in (signal.SIGTERM, signal.SIGINT):
    signal.signal(signum, lambda number, _: seen.append(number))
print("ready", flush=True)
give_up_at = time.monotonic() + 60
while not seen and time.monotonic() < give_up_at:
    time.sleep(0.02)
time.sleep(0.5)  # whatever else comes
print("signals", seen, "bucket", open_store("gs://rehearsal/x").create("a", b"1"), flush=True)
sys.exit(7)
"""


def rehearsing(*command, options=()):
    return [*FANFOLD, "rehearse", "--platforms", "gcs", *options, "--", *command]


def run(*command, cwd, options=()):
    return subprocess.run(
        rehearsing(*command, options=options), cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_command_is_led_to_the_bucket_and_its_exit_code_is_the_rehearsals(tmp_path):
    ended = run(sys.executable, "-c", f"{PUT.format('one')}; raise SystemExit(5)", cwd=tmp_path)

    assert ended.returncode == 5
    assert ended.stdout.splitlines()[0].startswith("rehearsing with gcs")
    assert "True" in ended.stdout
    assert "gcs: 1 writes and listings, 0 reads: $0.0000" in ended.stdout


@pytest.mark.parametrize("platform", rehearse.emulators())
def test_every_emulator_starts_bills_nothing_and_stops(tmp_path, platform):
    command = [*FANFOLD, "rehearse", "--platforms", platform, "--", "true"]

    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 0, ended.stderr
    assert re.search(rf"\n  {platform}: .*\$0\.0000", ended.stdout)


def test_what_is_in_the_bucket_stays_for_the_next_rehearsal(tmp_path):
    first = run(sys.executable, "-c", PUT.format("one"), cwd=tmp_path)
    second = run(sys.executable, "-c", PUT.format("two"), cwd=tmp_path)

    assert "True" in first.stdout
    assert "False" in second.stdout
    assert (tmp_path / "fanfold-rehearsal/gcs/objects/rehearsal/x/a").read_text() == "one"


def test_an_uploaded_folder_is_in_the_bucket_as_it_is_now(tmp_path):
    """Changed files are replaced, deleted ones go; what is unchanged keeps its time, so a campaign resumes."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("same", "changed", "gone"):
        (videos / name).write_text(name)
    listing = "from gpu_jobs.store import open_store; print([(e.key, e.size_bytes, e.stored_at) for e in open_store('gs://rehearsal/videos').list('')])"
    first = run(sys.executable, "-c", listing, cwd=tmp_path, options=["--upload", "videos"]).stdout.splitlines()[2]
    (videos / "changed").write_text("otherwise")
    (videos / "gone").unlink()
    second = run(sys.executable, "-c", listing, cwd=tmp_path, options=["--upload", "videos"]).stdout.splitlines()[2]

    before, after = ({key: (size, at) for key, size, at in eval(line)} for line in (first, second))
    assert before.keys() == {"same", "changed", "gone"}
    assert after.keys() == {"same", "changed"}
    assert after["same"] == before["same"]
    assert after["changed"][0] == 9


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_command_once_and_the_bucket_outlives_it(tmp_path, signum):
    with subprocess.Popen(
        rehearsing(sys.executable, "-c", ENDING),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while "ready" not in process.stdout.readline():
            pass
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signum)
        rest = process.stdout.read()

    assert f"signals [{signum:d}] bucket True" in rest
    assert "gcs: " in rest
    assert process.returncode == 7
    assert psutil.wait_procs(children, timeout=20)[1] == []


def test_ctrl_c_on_a_terminal_reaches_the_command_once(tmp_path):
    command = [*ON_A_TERMINAL, *rehearsing(sys.executable, "-c", ENDING)]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        while b"ready" not in process.stdout.readline():
            pass
        process.stdin.write(b"\x03")
        process.stdin.flush()
        rest = process.stdout.read().decode()
        process.stdin.close()

    assert "signals [2] bucket True" in rest
    assert process.returncode == 7


@pytest.mark.parametrize(
    ("options", "command", "code", "told"),
    [
        (["--upload", "absent"], "true", 1, "upload: there is no folder 'absent'"),
        (["--platforms", "cloud_run", "--upload", "."], "true", 1, "upload: "),
        ([], "no-such-command", 127, "no-such-command: No such file or directory"),
        (["--platforms", "gcs,azure"], "true", 2, "'azure'"),
    ],
)
def test_what_cannot_be_rehearsed_is_told_in_a_line(tmp_path, options, command, code, told):
    ended = run(command, cwd=tmp_path, options=options)

    assert ended.returncode == code
    assert told in f"{ended.stderr}{ended.stdout}"
    assert "Traceback" not in ended.stderr


def test_a_missing_package_names_the_extra(monkeypatch, capsys):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(rehearse.importlib.metadata, "version", absent)

    assert rehearse.installed() == []
    assert cli.main(["rehearse", "--platforms", "cloud_run", "--", "true"]) == 1
    assert capsys.readouterr().err == "cloud_run: google-cloud-run is missing: pip install 'fanfold[cloud-run]'\n"


def test_a_doctor_says_a_line_for_each_check_and_fails_if_one_does(monkeypatch, capsys):
    monkeypatch.delenv("FANFOLD_CLOUD_RUN_PROJECT", raising=False)
    monkeypatch.setenv("FANFOLD_CLOUD_RUN_EMULATOR", "127.0.0.1:1")

    assert cli.main(["doctor", "cloud_run", "--store", "here"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "MISSING settings: FANFOLD_CLOUD_RUN_PROJECT is not set. Run `export FANFOLD_CLOUD_RUN_PROJECT=…`",
        "MISSING store: 'here' is a folder of this machine. Give gs://bucket/prefix",
    ]


@pytest.mark.parametrize(
    ("package", "command", "told"),
    [
        ("google.cloud.run_v2", ["doctor", "cloud_run", "--store", "gs://b/p"], "pip install 'fanfold[cloud-run]'"),
        ("google.cloud.storage", ["rehearse", "--platforms", "gcs", "--upload", ".", "--", "true"], "'fanfold[gcs]'"),
    ],
)
def test_a_vendors_package_that_is_missing_is_told_with_its_extra(tmp_path, package, command, told):
    program = f"import sys; sys.modules['{package}'] = None; from gpu_jobs.cli import main; sys.exit(main({command}))"

    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 1
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_offers_are_printed_of_one_platform_or_all(capsys):
    """Each with its price's date; one line a GPU type and region."""
    assert cli.main(["offers", "--platform", "modal"]) == 0
    of_modal = capsys.readouterr().out
    assert cli.main(["offers"]) == 0

    of_all = capsys.readouterr().out
    assert "A100-80GB" in of_modal
    assert not re.search(r"^(local|cloud_run|runpod) ", of_modal, re.MULTILINE)
    assert len(re.findall(r"^modal ", of_all, re.MULTILINE)) == len(re.findall(r"^modal ", of_modal, re.MULTILINE))
    assert re.search(r"^runpod ", of_all, re.MULTILINE)


def test_a_forecast_needs_a_campaign(capsys, tmp_path):
    """One line says that there is none."""
    assert cli.main(["forecast", str(tmp_path / "none")]) == 1

    assert capsys.readouterr().err == f"there is no campaign at {tmp_path / 'none'}\n"
