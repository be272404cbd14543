"""``ipc.of``: the clients by their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyipc.node_ipc.client import Client

__all__ = ["Clients"]


class Clients:
    """Clients by id: ``ipc.of.world`` or ``ipc.of["world"]``.

    It has no methods of its own that an id could hide behind, and with brackets any text is an id.
    """

    __slots__ = ("__clients",)

    def __init__(self) -> None:
        self.__clients: dict[str, Client] = {}

    def __getattr__(self, id: str) -> Client:
        try:
            return self.__clients[id]
        except KeyError:
            raise AttributeError(f"there is no client {id!r}; connect_to({id!r}) makes one") from None

    def __getitem__(self, id: str) -> Client:
        return self.__clients[id]

    def __setitem__(self, id: str, client: Client) -> None:
        self.__clients[id] = client

    def __delitem__(self, id: str) -> None:
        del self.__clients[id]

    def __contains__(self, id: object) -> bool:
        return id in self.__clients

    def __iter__(self) -> Iterator[str]:
        return iter(self.__clients)

    def __len__(self) -> int:
        return len(self.__clients)

    def __repr__(self) -> str:
        return f"<Clients {', '.join(self.__clients)}>"
