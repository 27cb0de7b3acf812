"""Stands between a browser and the server, and breaks all connections off when it is told to."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType

_ABORT = struct.pack("ii", 1, 0)  # hang up without a goodbye


class Cutting:
    """A port of loopback that leads to another one."""

    def __init__(self, port: int) -> None:
        self._port, self._lock = port, threading.Lock()
        self._open: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._receive, daemon=True).start()

    @property
    def url(self) -> str:
        """Where to find it."""
        return f"http://127.0.0.1:{self._door.getsockname()[1]}/"

    def cut(self) -> int:
        """Break off what is open; gives how many connections that were."""
        with self._lock:
            ends, self._open = self._open, []
        for one in ends:
            self._end(one)
        return len(ends) // 2

    def __enter__(self) -> Cutting:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._door.close()
        self.cut()

    def _receive(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                return
            with self._lock:
                self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            return

    @staticmethod
    def _end(one: socket.socket) -> None:
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            one.shutdown(socket.SHUT_RDWR)
            one.close()
        except OSError:
            return
