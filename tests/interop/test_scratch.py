import json
import trio
from .node import *

async def test_client(node, place):
    with trio.fail_after(20):
        listener, where = await place.listen()
        peer = await node()
        async with trio.open_nursery() as n:
            n.start_soon(peer.connect, where)
            stream = await listener.accept()
        await peer.command("emit", id="world", event="a", data={"x": 1})
        await peer.command("emit", id="world", event="a")
        await peer.command("emit", id="world", event="a", data="caf\xe9 \U0001f600 \ud800")
        await peer.command("emit", id="world", event="a", js="NaN")
        await peer.command("emit", id="world", event="a", js="Buffer.from([0,255])")
        await peer.command("write", id="world", hex="0c0c")
        got = b""
        while b"\f\f\f" not in got:
            got += await stream.receive_some()
        print(got)
        await stream.send_all(b'{"type":"a"}\f{"type":"disconnect","data":3}\f')
        await peer.command("on", ) if 0 else None
        print(await peer.event("disconnect"))
        await stream.send_all(b'nojson\f')
        print(await peer.event("error"))
        await stream.send_all(b'{"type":"toString"}\f')
        await trio.sleep(0.2)
        print(peer.crashed, peer.reports)
        await stream.aclose()
        print(await peer.kill(), peer.process.returncode)

async def test_server(node, place, tap):
    with trio.fail_after(20):
        peer = await node()
        where = await peer.serve(place, on=["a"], echo=["a"])
        t = await tap(where, chunk=1)
        s = await t.place.open()
        print(await peer.event("connect"))
        await s.send_all(frame("a", "caf\xe9 \U0001f600 \ud800"))
        got = b""
        while b"\f" not in got:
            got += await s.receive_some()
        print(got, await peer.event("a"))
        assert t.sent == t.answered
        await peer.command("emit", socket=0, event="b", js="'x'.repeat(100)")
        await s.send_all(frame("a", "x"*70_000))
        print(await peer.event("a"))
        await s.aclose()
        print(await peer.event("socket.disconnected"))

async def test_raw(node, place, tap):
    with trio.fail_after(20):
        peer = await node()
        where = await peer.serve(place, on=["data"], echo=["data"], rawBuffer=True, encoding="hex")
        t = await tap(where, chunk=1)
        s = await t.place.open()
        print(await peer.event("connect"))
        await s.send_all(bytes.fromhex("00ff80c3a90c"))
        got = b""
        while b"\f" not in got:
            got += await s.receive_some()
        print(got, await peer.event("data"))
