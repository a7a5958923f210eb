"""Wakes a thread that waits for pipes, from any other thread and from a signal handler."""

import os
from multiprocessing.connection import wait


class Wake:
    """One pipe; however often it is rung, draining it once silences it."""

    def __init__(self) -> None:
        self.waitable, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def ring(self) -> None:
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            return  # enough wake-ups are waiting

    def drain(self) -> None:
        if wait([self.waitable], timeout=0):
            os.read(self.waitable, 65536)
