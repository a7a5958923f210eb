"""No test may reach a cloud: Modal's client goes to the real one where its variable is not set."""

import os

os.environ["MODAL_SERVER_URL"] = "http://127.0.0.1:9"
os.environ["MODAL_CONFIG_PATH"] = "/nonexistent"
