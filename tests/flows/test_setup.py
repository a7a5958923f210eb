"""What the set-up warns of."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows.setup import _warning_without_password


@pytest.mark.parametrize(("status", "warns"), [(200, True), (401, False)])
def test_an_api_that_answers_without_a_password_is_warned_of(status, warns):
    """Prefect asks for none by default."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            assert "authorization" not in {name.lower() for name in self.headers}
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        told = _warning_without_password(f"http://127.0.0.1:{server.server_address[1]}/api/")

    assert bool(told) is warns
    assert not warns or "answers without a password" in told[0]
