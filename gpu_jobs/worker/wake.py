"""Wakes a thread that waits for pipes. Any other thread and any signal handler may wake it."""

import os
from multiprocessing.connection import wait


class Wake:
    """A pipe to wait for. One `drain` clears all earlier calls of `ring`."""

    def __init__(self) -> None:
        self.waitable, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def ring(self) -> None:
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            return  # the pipe is full, so the thread will wake anyway

    def drain(self) -> None:
        if wait([self.waitable], timeout=0):
            os.read(self.waitable, 65536)
