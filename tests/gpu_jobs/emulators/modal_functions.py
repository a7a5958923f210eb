"""Functions that do what containers may do, and how Modal's own command line deploys them."""

import subprocess
import sys

APP = "conformance"
FUNCTIONS = """
import os, signal, sys, time
import modal
from modal.exception import InputCancellation

app = modal.App("conformance", tags={"made-by": "test"})
options = {"timeout": 60, "scaledown_window": 2, "image": modal.Image.debian_slim().env({"FROM_IMAGE": "a b"})}


@app.function(**options, secrets=[modal.Secret.from_dict({"FROM_SECRET": "s3"})])
def about():
    names = ("FROM_IMAGE", "FROM_SECRET", "EMULATED_GPU", "MODAL_TASK_ID")
    return {name: os.environ.get(name, "") for name in names}


@app.function(**options)
def double(value):
    return 2 * value


@app.function(**options)
def fail():
    raise KeyError("no such thing")


@app.function(**options, retries=modal.Retries(max_retries=2, initial_delay=0.0))
def fail_twice(path):
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < 3:
        raise RuntimeError("again")
    return "third"


@app.function(**{**options, "timeout": 1})
def dawdle(path):
    try:
        time.sleep(60)
    except InputCancellation:
        open(path, "w").write("checkpoint")
        raise


@app.function(**{**options, "timeout": 1})
def refuse_to_end():
    while True:
        try:
            time.sleep(60)
        except (InputCancellation, KeyboardInterrupt):
            pass


@app.function(**options)
def die():
    os._exit(7)


@app.function(**options)
def wait_for(path):
    print("waiting for", path)
    while not os.path.exists(path):
        time.sleep(0.02)
    return os.environ["MODAL_TASK_ID"]
"""


def deploy(script):
    command = [sys.executable, "-m", "modal", "deploy", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
