"""node-ipc's own programming interface, so that a program written for it is ported line by line.

::

    from pyipc.node_ipc import IPC

    ipc = IPC()
    ipc.config.id = "world"

    def started():
        ipc.server.on("message", lambda data, socket: ipc.server.emit(socket, "message", data + " world!"))

    ipc.serve(started)
    ipc.server.start()
    trio.run(ipc.run)

Names are in snake_case; what is said on the wire is what node-ipc says, and real node-ipc programs take part.
``docs/how-to/from-node-ipc.md`` maps every option, method and event, and says what was mended. New programs are better
off with `pyipc.Server` and `pyipc.connect`, on which this is built.
"""

from pyipc.node_ipc.client import Client as Client
from pyipc.node_ipc.clients import Clients as Clients
from pyipc.node_ipc.config import Config as Config
from pyipc.node_ipc.config import Interface as Interface
from pyipc.node_ipc.emitter import Emitter as Emitter
from pyipc.node_ipc.ipc import IPC as IPC
from pyipc.node_ipc.server import Server as Server
from pyipc.node_ipc.socket import Socket as Socket

__all__ = ["IPC", "Client", "Clients", "Config", "Emitter", "Interface", "Server", "Socket"]
