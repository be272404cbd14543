"""Topics: ``python examples/topics.py``.

A desk publishes orders, a kitchen wants some of them, and a screen comes late. The server in the middle only passes on.
It keeps the last message of what is published with ``retain``, so the screen begins with the state of things instead
of nothing.
"""

from __future__ import annotations

import trio

import pyipc


def may_publish(peer: pyipc.Peer, topic: str) -> bool:
    """Whoever may connect may publish orders and states, and nothing else."""
    return topic.startswith(("orders.", "state."))


async def kitchen(address: str, task_status: trio.TaskStatus[None]) -> None:
    async with (
        pyipc.connect(address) as client,
        # Should the kitchen not keep up, it learns so instead of missing an order without knowing it.
        client.subscribe("orders.*.food", policy="close") as orders,
    ):
        task_status.started()
        for number in range(1, 3):
            message = await orders.get(timeout=5)
            print(f"kitchen: table {message.event.split('.')[1]} wants {message.data['what']}")
            await client.publish("state.kitchen", {"orders": number}, retain=True)


async def screen(address: str) -> None:
    async with pyipc.connect(address) as client, client.subscribe("state.**") as states:
        message = await states.get(timeout=5)
        print(f"screen:  {message.event} is {message.data}{' from before' if message.retained else ''}")


async def desk(address: str) -> None:
    async with pyipc.connect(address) as client:
        await client.publish("orders.7.food", {"what": "soup"})
        await client.publish("orders.7.drink", {"what": "water"})
        await client.publish("orders.9.food", {"what": "bread"})


async def main() -> None:
    async with (
        pyipc.Server("tcp://127.0.0.1:0", may_publish=may_publish) as server,
        # What goes through here the server's own program can see as well.
        server.subscribe("**") as everything,
    ):
        address = str(server.addresses[0])
        async with trio.open_nursery() as nursery:
            await nursery.start(kitchen, address)
            await desk(address)
        await screen(address)
        print("server: ", server.statistics().publishes, "messages")
        topics = [(await everything.get()).event for _ in range(5)]
        print("server: ", ", ".join(sorted(topics)))


trio.run(main)
