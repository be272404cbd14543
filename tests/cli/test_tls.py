"""TLS on the command line: its options, what ``doctor`` tells of it, and the guide, whose commands are run."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio

import pyipc
from pyipc.cli.exits import ExitCode
from tests.cli.processes import PATIENCE, ROOT, SCRIPT, run, start
from tests.cli.test_docs import arguments_in
from tests.conftest import CANNOT_RUN, NODE_IPC_VERSIONS, needs_node

if TYPE_CHECKING:
    from pathlib import Path

POSIX = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} it needs a POSIX shell")

SERVER = ("--cert", "localhost.pem", "--key", "localhost-key.pem")
CLIENT = ("--ca", "ca.pem")
ADA = ("--cert", "ada.pem", "--key", "ada-key.pem", *CLIENT)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a CA, a server and a client, made by the real command."""
    directory = tmp_path_factory.mktemp("certificates")

    async def make() -> None:
        for words in (("ca",), ("server", "localhost", "127.0.0.1"), ("client", "ada"), ("client", "eve")):
            result = await run("cert", *words, cwd=directory)
            assert result.status == 0, result

    trio.run(make)
    return directory


async def test_serve_and_request(certificates: Path) -> None:
    async with start("serve", "tls://localhost:0", *SERVER, "--reply", '"yes"', cwd=certificates) as server:
        address = await server.listening()
        result = await run("request", address, "is it safe", *CLIENT, cwd=certificates)
        assert (result.status, result.out, result.err) == (0, '"yes"\n', "")


async def test_what_the_library_calls_its_arguments_are_options_here(certificates: Path) -> None:
    half = await run("request", "tls://localhost:1", "x", "--cert", "localhost.pem", cwd=certificates)
    assert (half.status, half.out) == (ExitCode.USAGE, "")
    assert "--key" in half.err
    async with start("serve", "tls://localhost:0", *SERVER, cwd=certificates) as server:
        stranger = await run("request", await server.listening(), "x", cwd=certificates)
        assert stranger.status != 0
        assert "--ca" in stranger.err


async def test_clients_are_known_by_their_certificates(certificates: Path) -> None:
    options = (*SERVER, "--client-ca", "ca.pem", "--allow", "ada")
    async with start("serve", "tls://localhost:0", *options, cwd=certificates) as server:
        address = await server.listening()
        assert (await run("emit", address, "x", "1", *ADA, cwd=certificates)).status == 0
        await server.line("event +x +1")
        await server.line("connected +ada at tls://")
        for stranger in (("--cert", "eve.pem", "--key", "eve-key.pem", *CLIENT), CLIENT):
            result = await run("request", address, "x", "1", "--timeout", "9", *stranger, cwd=certificates)
            assert result.status in (ExitCode.UNREACHABLE, ExitCode.LOST), result
            assert result.out == ""
            assert "Traceback" not in result.err
        assert (await run("emit", address, "y", "2", *ADA, cwd=certificates)).status == 0
        await server.line("event +y +2")


async def test_a_fingerprint_is_allowed_and_pinned(certificates: Path) -> None:
    shown = await run("cert", "show", "localhost.pem", "ada.pem", "--json", cwd=certificates)
    of_server, of_ada = [json.loads(line)["fingerprint"] for line in shown.lines]
    options = (*SERVER, "--client-ca", "ca.pem", "--allow", of_ada)
    async with start("serve", "tls://localhost:0", *options, cwd=certificates) as server:
        address = await server.listening()
        right = await run("request", address, "x", "1", *ADA, "--allow", of_server, cwd=certificates)
        assert (right.status, right.out) == (0, "null\n")
        wrong = await run("request", address, "x", "1", *ADA, "--allow", of_ada, cwd=certificates)
        assert wrong.status == ExitCode.UNREACHABLE
        assert "which is not allowed" in wrong.err
        assert "(here: --allow, or --allow-anyone)" in wrong.err


async def test_an_impostor_is_refused_and_insecure_warns(certificates: Path, tmp_path: Path) -> None:
    assert (await run("cert", "ca", cwd=tmp_path)).status == 0
    async with start("serve", "tls://localhost:0", *SERVER, cwd=certificates) as server:
        address = await server.listening()
        refused = await run("request", address, "x", "1", *CLIENT, cwd=tmp_path)
        assert (refused.status, refused.out) == (ExitCode.UNREACHABLE, "")
        assert len(refused.err.splitlines()) == 1
        result = await run("request", address, "x", "1", "--insecure", cwd=tmp_path)
        assert (result.status, result.out) == (0, "null\n")
        assert "not verified" in result.err


async def test_listen_and_broadcast(certificates: Path) -> None:
    async with start("broadcast", "tls://localhost:0", "news", "--lines", *SERVER, cwd=certificates) as server:
        address = await server.listening()
        async with start("listen", address, "--count", "1", *CLIENT, cwd=certificates) as client:
            await client.line("connected to tls://", stream="err")
            await server.write('"it works"\n')
            assert (await client.finish()).out.endswith('news  "it works"\n')
        await server.close_stdin()
        assert (await server.finish()).status == 0


async def test_bench(certificates: Path) -> None:
    async with start("serve", "tls://localhost:0", "--echo", *SERVER, cwd=certificates) as server:
        address = await server.listening()
        result = await run("bench", address, "--count", "10", "--json", *CLIENT, cwd=certificates)
        assert (result.status, json.loads(result.out)["errors"]) == (0, {})


async def test_tap_between_a_plain_client_and_an_encrypted_server(address: str, certificates: Path) -> None:
    async with start("serve", "tls://localhost:0", *SERVER, "--client-ca", "ca.pem", cwd=certificates) as server:
        target = await server.listening()
        async with start("tap", address, target, *ADA, cwd=certificates) as tap:
            await tap.listening()
            assert (await run("request", address, "ask", "1")).out == "null\n"
            await tap.line('-> .* request 1 "ask" 1$')
            await tap.line("<- .* reply 1")


async def test_tap_between_an_encrypted_client_and_a_plain_server(address: str, certificates: Path) -> None:
    async with start("serve", address) as server:
        await server.listening()
        options = (*SERVER, "--client-ca", "ca.pem")
        async with start("tap", "tls://localhost:0", address, *options, cwd=certificates) as tap:
            spied = await tap.listening()
            assert (await run("request", spied, "ask", "1", *ADA, cwd=certificates)).out == "null\n"
            await tap.line('-> .* request 1 "ask" 1$')
            # Who proves nothing is turned away, and the next one is welcome.
            assert (await run("request", spied, "ask", "2", *CLIENT, cwd=certificates)).status != 0
            await tap.line("^pyipc: turned away: ", stream="err")
            assert (await run("request", spied, "ask", "3", *ADA, cwd=certificates)).out == "null\n"


async def test_tap_between_two_that_both_want_certificates(certificates: Path) -> None:
    mutual = (*SERVER, "--client-ca", "ca.pem")
    async with start("serve", "tls://localhost:0", *mutual, "--allow", "ada", cwd=certificates) as server:
        target = await server.listening()
        options = (*mutual, "--target-cert", "ada.pem", "--target-key", "ada-key.pem", "--ca", "ca.pem")
        async with start("tap", "tls://localhost:0", target, *options, cwd=certificates) as tap:
            spied = await tap.listening()
            eve = ("--cert", "eve.pem", "--key", "eve-key.pem", *CLIENT)
            assert (await run("request", spied, "ask", "1", *eve, cwd=certificates)).out == "null\n"
            await tap.line('-> .* request 1 "ask" 1$')


async def test_tap_tells_why_the_target_does_not_want_it(certificates: Path) -> None:
    """Over TLS 1.3 it tells so only when there is something to read."""
    mutual = (*SERVER, "--client-ca", "ca.pem")
    async with start("serve", "tls://localhost:0", *mutual, cwd=certificates) as server:
        target = await server.listening()
        async with start("tap", "tls://localhost:0", target, *SERVER, *CLIENT, "--json", cwd=certificates) as tap:
            spied = await tap.listening()
            assert (await run("emit", spied, "x", "1", *CLIENT, cwd=certificates)).status != 0
            found = json.loads((await tap.line('.*"kind":"closed".*'))[0])
            assert found["lost"] == "server"
            assert "does not accept our certificate" in found["message"]


@pytest.mark.parametrize("words", [("serve",), ("broadcast",), ("tap",)], ids=" ".join)
async def test_who_listens_needs_a_certificate(words: tuple[str, ...]) -> None:
    more = {"broadcast": ("news", "1"), "tap": ("world",)}.get(words[0], ())
    result = await run(*words, "tls://localhost:0", *more)
    assert (result.status, result.out) == (ExitCode.USAGE, "")
    assert "tls://localhost:0 needs --cert FILE" in result.err


async def test_half_of_what_is_for_the_target() -> None:
    result = await run("tap", "spied", "tls://localhost:1", "--target-key", "key.pem")
    assert result.status == ExitCode.USAGE
    assert "--target-key needs --target-cert" in result.err


async def test_one_server_with_and_without_it(address: str, certificates: Path) -> None:
    async with start("serve", address, "tls://localhost:0", *SERVER, cwd=certificates) as server:
        encrypted = (await server.line(r"listening on (tls:\S+)$", stream="err"))[1]
        for where, options in ((address, ()), (encrypted, CLIENT)):
            assert (await run("request", where, "x", "1", *options, cwd=certificates)).out == "null\n"


# --- what is refused at once ---


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["emit", "tls://localhost:1", "x", "1", "--key", "ada-key.pem"], "--key needs --cert as well"),
        (["serve", "tls://localhost:0", "--client-ca", "ca.pem"], "--client-ca needs --cert as well"),
        (["serve", "tls://localhost:0"], "certificate"),
        (["emit", "tls://localhost:1", "x", "1", "--ca", "nowhere.pem"], "nowhere.pem"),
        (["emit", "tls://localhost:1", "x", "1", "--ca", "ca-key.pem"], "ca-key.pem"),
        (["serve", "tls://localhost:0", "--cert", "localhost.pem", "--key", "ada-key.pem"], "ada-key.pem"),
        (["emit", "tls://localhost:1", "x", "1", "--ca", "ca.pem", "--insecure"], "not allowed with argument"),
        (["emit", "world", "x", "1", "--allow", "1", "--allow-anyone"], "not allowed with argument"),
        (["emit", "world", "x", "1", "--allow", "sha256:12"], "is not a fingerprint; write sha256:"),
        (["emit", "world", "x", "1", "--ca", "ca.pem"], "world has no TLS"),
        (["emit", "tls://localhost:1", "x", "1", "--allow", "1000"], "TLS tells certificates and not users"),
        (["emit", "tcp://localhost:1", "x", "1", "--allow", "ada"], "tls:// with client certificates"),
    ],
)
async def test_what_makes_no_sense_is_a_sentence(arguments: list[str], sentence: str, certificates: Path) -> None:
    result = await run(*arguments, cwd=certificates)
    assert (result.status, result.out) == (ExitCode.USAGE, ""), result
    assert sentence in result.err
    assert "Traceback" not in result.err


async def test_a_user_is_allowed_by_number(address: str) -> None:
    async with start("serve", address, "--allow", str(os.geteuid())) as server:
        await server.listening()
        assert (await run("request", address, "x", "1", "--allow", str(os.geteuid()))).out == "null\n"
        refused = await run("request", address, "x", "1", "--allow", str(os.geteuid() + 1))
        assert refused.status == ExitCode.UNREACHABLE
        assert "(here: --allow, or --allow-anyone)" in refused.err


# --- doctor ---


async def examine(*arguments: str, status: int, cwd: Path) -> dict[str, dict[str, Any]]:
    """What the real command finds, by check."""
    result = await run("doctor", *arguments, "--json", cwd=cwd)
    assert result.status == status, result
    return {finding["check"]: finding for finding in map(json.loads, result.lines)}


async def test_doctor_shows_what_a_server_shows(certificates: Path) -> None:
    async with start("serve", "tls://localhost:0", *SERVER, cwd=certificates) as server:
        address = await server.listening()
        found = await examine(address, *CLIENT, status=0, cwd=certificates)
    assert {finding["level"] for finding in found.values()} == {"ok"}
    assert found["tls"]["version"] == "TLSv1.3"
    assert found["tls"]["alpn"] == "pyipc/1"
    shown = json.loads((await run("cert", "show", "localhost.pem", "--json", cwd=certificates)).out)
    del shown["kind"], shown["file"]
    assert shown.items() <= found["certificate"].items()
    assert f"its fingerprint is {shown['fingerprint']}" in found["certificate"]["text"]
    assert found["protocol"]["protocol"] == "pyipc/1"


async def test_doctor_tells_why_it_is_not_trusted(certificates: Path, tmp_path: Path) -> None:
    assert (await run("cert", "ca", cwd=tmp_path)).status == 0
    async with start("serve", "tls://127.0.0.1:0", *SERVER, cwd=certificates) as server:
        address = await server.listening()
        unknown = await examine(address, "--ca", str(tmp_path / "ca.pem"), status=1, cwd=certificates)
        wrong = await examine(address.replace("127.0.0.1", "127.0.0.2"), *CLIENT, status=1, cwd=certificates)
    assert (unknown["handshake"]["level"], unknown["handshake"]["code"]) == ("problem", "unknown-ca")
    # All that it would show is shown all the same.
    assert unknown["certificate"]["subject"] == "localhost"
    assert "connect" in wrong or wrong["handshake"]["code"] == "wrong-host"


@pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} no signal ends a program in order")
async def test_doctor_tells_what_the_server_misses(certificates: Path) -> None:
    options = (*SERVER, "--client-ca", "ca.pem")
    async with start("serve", "tls://localhost:0", *options, cwd=certificates) as server:
        address = await server.listening()
        found = await examine(address, *CLIENT, status=1, cwd=certificates)
        assert found["handshake"]["code"] == "certificate-required"
        # It leaves in order, so that the server has nothing to complain of.
        await examine(address, *ADA, status=0, cwd=certificates)
        result = await server.interrupt()
    assert "disconnected" in result.out
    assert "broke" not in result.out


async def test_doctor_where_there_is_no_tls(certificates: Path) -> None:
    async with pyipc.Server("tcp://127.0.0.1:0") as server:
        address = str(server.addresses[0]).replace("tcp", "tls")
        found = await examine(address, *CLIENT, status=1, cwd=certificates)
    # It ends the connection when it is told what is no JSON.
    assert found["handshake"]["code"] in ("not-tls", "closed")
    assert "certificate" not in found
    found = await examine("tls://localhost:1", *CLIENT, status=1, cwd=certificates)
    assert found["connect"]["level"] == "problem"


# --- the guide ---

GUIDE = (ROOT / "docs/how-to/tls.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@POSIX
@pytest.mark.slow
@pytest.mark.time_limit(180)
async def test_the_guide_does_what_it_says(tmp_path: Path) -> None:
    """Every command in order, in one directory, with a free port in the place of 8000."""
    lines = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines() if line[:2] == "$ "]
    port = "0"
    path = {"PATH": f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}"}
    with trio.fail_after(6 * PATIENCE):
        async with AsyncExitStack() as stack:
            for line in lines:
                command = line.replace(":8000", f":{port}")
                if command.startswith("pyipc serve"):
                    server = await stack.enter_async_context(start(*arguments_in(command), cwd=tmp_path))
                    port = (await server.listening()).rpartition(":")[2]
                    continue
                result = await run(command=["bash", "-c", command], env=path, cwd=tmp_path)
                assert result.status == 0, f"{command}: {result}"
    assert port != "0"
    assert len(lines) >= 12


_NODE = "const loaded = require('node-ipc'); const ipc = loaded.default || loaded; ipc.config.silent = true;\n"


@pytest.fixture(params=NODE_IPC_VERSIONS)
def node(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a Node program that finds a version of node-ipc."""
    return {"NODE_PATH": str(needs_node(request.param))}


@pytest.fixture
def laid_out(certificates: Path, tmp_path: Path) -> Path:
    """The directory that the guide works in."""
    shutil.copytree(certificates, tmp_path / "here")
    (tmp_path / "here" / "certs").mkdir()
    shutil.copy(certificates / "ca.pem", tmp_path / "here" / "certs")
    return tmp_path / "here"


async def test_the_programs_of_the_guide_talk_to_each_other(laid_out: Path) -> None:
    of_server, of_client = blocks("python")
    said = blocks("text")[0]
    tell = "async def main():\n    async with server:\n        print(server.addresses[0].port, flush=True)\n"
    tell += "        await trio.sleep_forever()\ntrio.run(main)\n"
    (laid_out / "server.py").write_text(of_server.replace(":8000", ":0").replace("trio.run(server.run)\n", tell))
    async with start("server.py", command=[sys.executable], cwd=laid_out) as server:
        port = (await server.line(r"^(\d+)$"))[1]
        (laid_out / "client.py").write_text(of_client.replace(":8000", f":{port}"))
        result = await run("client.py", command=[sys.executable], cwd=laid_out)
        assert (result.status, result.out, result.err) == (0, said, "")


@pytest.mark.interop
async def test_the_node_client_of_the_guide(node: dict[str, str], laid_out: Path) -> None:
    options = (*SERVER, "--client-ca", "ca.pem", "--allow", "ada", "--echo")
    async with start("serve", "tls://localhost:0", *options, cwd=laid_out) as server:
        port = (await server.listening()).rpartition(":")[2]
        talk = (
            "ipc.of.world.on('connect', () => ipc.of.world.emit('greet', 'hello'));\n"
            "ipc.of.world.on('greet', (data) => { console.log(data); ipc.disconnect('world'); });\n"
        )
        (laid_out / "client.js").write_text(_NODE + blocks("js")[0].replace("8000", port) + talk)
        result = await run("client.js", command=["node"], env=node, cwd=laid_out)
        assert (result.status, result.out, result.err) == (0, "hello\n", "")
        await server.line("connected +ada at tls://")


@pytest.mark.interop
async def test_the_node_server_of_the_guide(node: dict[str, str], laid_out: Path) -> None:
    tell = (
        "ipc.server.on('start', () => console.log('port', ipc.server.server.address().port));\n"
        "ipc.server.on('seen', (data) => console.log(JSON.stringify(data)));\n"
    )
    (laid_out / "server.js").write_text(_NODE + blocks("js")[1].replace("8000", "0") + tell)
    async with start("server.js", command=["node"], env=node, cwd=laid_out) as server:
        address = "tls://localhost:" + (await server.line(r"^port (\d+)$"))[1]
        assert (await run("emit", address, "seen", '{"page": 7}', *ADA, cwd=laid_out)).status == 0
        await server.line('^{"page":7}$')
        found = await examine(address, *ADA, status=0, cwd=laid_out)
        assert (found["tls"]["alpn"], found["protocol"]["protocol"]) == (None, "plain")
        # A stranger is not heard, and harms nobody.
        stranger = await run("request", address, "seen", "8", "--timeout", "9", *CLIENT, cwd=laid_out)
        assert stranger.status in (ExitCode.UNREACHABLE, ExitCode.LOST)
        assert (await run("emit", address, "seen", "9", *ADA, cwd=laid_out)).status == 0
        await server.line("^9$")
        assert server.out.splitlines()[1:] == [b'{"page":7}', b"9"]
