"""Messages between this process and a worker process, over a Unix socket: pickled objects, and open files with them."""

from __future__ import annotations

import pickle
import socket
import struct
from typing import Any, Final

_LENGTH: Final = struct.Struct("!Q")
_FILES: Final = 4
"""As many may come with a message."""


def send(to: socket.socket, message: Any, files: tuple[int, ...] = ()) -> None:
    """Send an object, and descriptors of open files, which the receiver gets as descriptors of its own.

    Raises:
        OSError: The receiver is gone.
    """
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    socket.send_fds(to, [_LENGTH.pack(len(data))], files)
    to.sendall(data)


def receive(source: socket.socket) -> tuple[Any, list[int]]:
    """Wait for an object and for the descriptors that come with it.

    Raises:
        EOFError: The sender is gone.
        TimeoutError: The socket has a timeout, and it has passed.
    """
    head, files, _, _ = socket.recv_fds(source, _LENGTH.size, _FILES)
    while 0 < len(head) < _LENGTH.size:
        head += _read(source, _LENGTH.size - len(head))
    if not head:
        raise EOFError("the sender is gone")
    return pickle.loads(_read(source, _LENGTH.unpack(head)[0])), files


def _read(source: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = source.recv_into(view)
        if got == 0:
            raise EOFError("the sender is gone")
        view = view[got:]
    return bytes(data)
