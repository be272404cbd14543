"""Writes the beginning of a batch and is killed, once for each length: ``python -S -E tests/battery/torn_writer.py``.

One line of input is one peer: how many bytes it is to write. Each is a process of its own, made by a fork of this one,
which knows nothing of pyipc, so that there can be thousands. In the end it says how many were killed as they should.
"""

import os
import signal
import socket
import sys
from pathlib import Path

# In the greeting this stands for a name that each peer has alone.
ANYBODY = b"0" * 32


def main() -> None:
    """Be a peer that connects, or one that accepts, for each line."""
    role, kind, address, greeting_file, batch_file = sys.argv[1:]
    greeting, batch = Path(greeting_file).read_bytes(), Path(batch_file).read_bytes()
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    listener = None
    if role == "accept":
        listener = socket.socket(family)
        listener.bind(address if kind == "unix" else ("127.0.0.1", 0))
        listener.listen()
        print(address if kind == "unix" else listener.getsockname()[1], flush=True)
    killed = 0
    for number, line in enumerate(sys.stdin):
        child = os.fork()
        if not child:
            signal.alarm(60)  # the other side may never connect
            try:
                if listener is not None:
                    sock = listener.accept()[0]
                    read_greeting(sock)
                    sock.sendall(greeting)
                else:
                    sock = socket.socket(family)
                    sock.connect(address if kind == "unix" else ("127.0.0.1", int(address)))
                    sock.sendall(greeting.replace(ANYBODY, b"%032x" % number))
                    read_greeting(sock)
                sock.sendall(batch[: int(line)])
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)  # that was not what was asked for
        status = os.waitpid(child, 0)[1]
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    print("killed", killed, flush=True)


def read_greeting(sock: socket.socket) -> None:
    """Read all that the other side says by itself: what is unread when a socket is closed would make it look broken."""
    received = b""
    while not received.endswith(b"\f"):
        chunk = sock.recv(65_536)
        if not chunk:
            raise EOFError("the other side has nothing to say")
        received += chunk


if __name__ == "__main__":
    main()
