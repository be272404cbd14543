"""``pyipc cert``: its files, its words, and what it refuses."""

from __future__ import annotations

import datetime
import json
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from pyipc.cli.certificates.files import Pair, read_authority
from pyipc.cli.certificates.issuing import Credential, make_authority
from pyipc.cli.exits import ExitCode, Failed
from pyipc.cli.main import make_parser
from tests.cli.processes import run
from tests.cli.terminal import start_in_terminal, without_rich
from tests.conftest import CANNOT_RUN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY = datetime.timedelta(days=1)
POSIX = pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are no permissions of this kind")
NOT_ROOT = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() == 0, reason=f"{CANNOT_RUN} the administrator may write everywhere"
)


async def cert(*arguments: str, cwd: Path, status: int = 0) -> list[dict[str, Any]]:
    """The records of the real command, which has nothing to complain of."""
    result = await run("cert", *arguments, "--json", cwd=cwd)
    assert (result.status, result.err) == (status, ""), result
    assert "PRIVATE KEY" not in result.out
    return [json.loads(line) for line in result.lines]


async def refused(*arguments: str, cwd: Path, status: int) -> str:
    """What the real command says when it refuses, in one line; it leaves everything as it was."""
    before = contents(cwd)
    result = await run("cert", *arguments, cwd=cwd)
    assert (result.status, result.out) == (status, ""), result
    assert "Traceback" not in result.err
    assert contents(cwd) == before
    *_, sentence = result.err.splitlines()
    return sentence


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def plant(directory: Path, *, lifetime: datetime.timedelta = 10 * DAY, age: datetime.timedelta = 0 * DAY) -> Credential:
    """An authority, made as the command makes it but for its age."""
    authority = make_authority("a CA", lifetime=lifetime, now=datetime.datetime.now(datetime.UTC) - age)
    Pair.of(str(directory), "ca").write(authority)
    return authority


# --- what it makes ---


async def test_from_nothing_to_a_pair_that_trusts_each_other(tmp_path: Path) -> None:
    [ca] = await cert("ca", "certs", cwd=tmp_path)
    [server] = await cert("server", "localhost", "127.0.0.1", "localhost", "--ca-dir", "certs", cwd=tmp_path)
    [client] = await cert("client", "ada", "--ca-dir", "certs", "--out-dir", "of/ada", "--days", "30", cwd=tmp_path)
    assert (ca["file"], ca["key_file"]) == (os.path.join("certs", "ca.pem"), os.path.join("certs", "ca-key.pem"))
    assert (server["file"], server["names"]) == ("localhost.pem", ["localhost", "127.0.0.1"])
    assert (client["file"], client["subject"]) == (os.path.join("of", "ada", "ada.pem"), "ada")
    assert ca["subject"] == ca["issuer"] == server["issuer"] == client["issuer"]
    assert [one["days_left"] for one in (ca, server, client)] == [3_649, 396, 29]
    assert [one["purposes"] for one in (ca, server, client)] == [[], ["server"], ["client"]]
    for made in (ca, server, client):
        certificate = x509.load_pem_x509_certificate((tmp_path / made["file"]).read_bytes())
        key = serialization.load_pem_private_key((tmp_path / made["key_file"]).read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.public_key() == certificate.public_key()
    shown = await cert("show", server["file"], ca["file"], cwd=tmp_path)
    for before, after in zip((server, ca), shown, strict=True):
        del before["key_file"]
        assert after == before
    assert len(contents(tmp_path)) == 6


@POSIX
async def test_only_the_owner_reads_a_key_whatever_the_umask(tmp_path: Path) -> None:
    for mask, name in ((0o000, "open"), (0o077, "closed")):
        before = os.umask(mask)
        try:
            await cert("ca", name, cwd=tmp_path)
        finally:
            os.umask(before)
        directory = tmp_path / name
        assert (mode(directory), mode(directory / "ca-key.pem"), mode(directory / "ca.pem")) == (0o700, 0o600, 0o644)


async def test_each_authority_has_a_name_of_its_own_unless_it_is_given_one(tmp_path: Path) -> None:
    [one] = await cert("ca", "one", cwd=tmp_path)
    [two] = await cert("ca", "two", cwd=tmp_path)
    [three] = await cert("ca", "three", "--name", "Ours", "--days", "7", "--only", "example.internal", cwd=tmp_path)
    assert one["subject"].startswith("pyipc CA ")
    assert one["subject"] != two["subject"]
    assert (three["subject"], three["days_left"], three["confines"]) == ("Ours", 6, ["example.internal"])


async def test_an_ipv6_address_is_a_file_name(tmp_path: Path) -> None:
    plant(tmp_path)
    [made] = await cert("server", "::1", "--days", "5", cwd=tmp_path)
    assert (made["file"], made["names"], made["subject"]) == ("ipv6--1.pem", ["::1"], "")


async def test_how_it_reads(tmp_path: Path) -> None:
    result = await run("cert", "ca", "certs", cwd=tmp_path)
    assert (result.status, result.err) == (0, "")
    assert (
        result.lines[0] == f"{os.path.join('certs', 'ca.pem')}, with its key in {os.path.join('certs', 'ca-key.pem')}"
    )
    assert [line.split()[0] for line in result.lines[1:]] == [
        "subject",
        "issuer",
        "validity",
        "fingerprint",
        "purpose",
        "key",
    ]
    assert result.lines[-1] == "  key          EC secp256r1, for keyCertSign, cRLSign"


@pytest.mark.skipif(sys.platform == "win32", reason=f"{CANNOT_RUN} there are no pseudo-terminals")
@pytest.mark.parametrize("rich", [True, False])
async def test_on_a_terminal(rich: bool, tmp_path: Path) -> None:
    if rich:
        pytest.importorskip("rich", reason="rich is not installed; pip install rich")
    env = {} if rich else without_rich(tmp_path)
    async with start_in_terminal("cert", "ca", str(tmp_path / "certs"), columns=140, env=env) as terminal:
        assert await terminal.finish() == 0
        assert terminal.lines[0].startswith(str(tmp_path / "certs"))
        assert "  purpose      vouching for others" in terminal.text
        assert terminal.style(str(tmp_path / "certs" / "ca.pem,")).bold is rich


async def test_it_ends_with_the_authority_and_says_so(tmp_path: Path) -> None:
    plant(tmp_path, lifetime=5 * DAY)
    result = await run("cert", "client", "ada", cwd=tmp_path)
    assert result.status == 0
    assert "4 days left" in result.out
    assert result.err == "pyipc: it ends with the CA, which is earlier than asked for; make a new CA in time\n"


# --- what it refuses ---


@pytest.mark.parametrize("existing", ["ada.pem", "ada-key.pem"])
async def test_nothing_is_overwritten(existing: str, tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / existing).write_text("precious")
    sentence = await refused("client", "ada", cwd=tmp_path, status=ExitCode.IO)
    assert sentence == (
        f"pyipc: {existing} is there already, and nothing is overwritten; move it away, or choose another directory"
    )


async def test_an_authority_is_not_overwritten(tmp_path: Path) -> None:
    plant(tmp_path)
    assert "ca.pem is there already" in await refused("ca", cwd=tmp_path, status=ExitCode.IO)


@POSIX
async def test_a_link_to_nowhere_is_not_written_through(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / "ada-key.pem").symlink_to(tmp_path / "elsewhere")
    assert "is there already" in await refused("client", "ada", cwd=tmp_path, status=ExitCode.IO)


@pytest.mark.parametrize("late", ["ca.pem", "ca-key.pem"])
def test_what_comes_meanwhile_is_not_overwritten_and_nothing_is_left(late: str, tmp_path: Path) -> None:
    (tmp_path / late).write_text("precious")
    with pytest.raises(Failed) as caught:
        plant(tmp_path)
    assert "is there already" in caught.value.sentence
    assert contents(tmp_path) == {str(tmp_path / late): b"precious"}


@pytest.mark.parametrize("call", ["fsync", "link", "open"])
@POSIX
def test_a_disk_that_fails_leaves_nothing(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each step, for each of the two files."""
    real: Callable[..., Any] = getattr(os, call)
    for failing in (1, 2):
        calls = iter(range(1, 10))

        def fail(*arguments: Any, failing: int = failing, calls: Any = calls, **options: Any) -> Any:
            if next(calls) == failing:
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(Failed) as caught:
                plant(tmp_path)
        assert caught.value.code is ExitCode.IO
        assert caught.value.sentence.startswith(f"cannot write {tmp_path / 'ca'}")
        assert caught.value.sentence.endswith(": No space left on device")
        assert contents(tmp_path) == {}


@POSIX
def test_a_key_is_never_readable_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the moment its file is there, and when nothing is in it yet."""
    seen: list[tuple[str, int]] = []
    real = os.open

    def watched(path: str, flags: int, *mode_given: int) -> int:
        descriptor = real(path, flags, *mode_given)
        if "-key" in path and flags & os.O_CREAT:
            seen.append((os.path.basename(path), stat.S_IMODE(os.fstat(descriptor).st_mode)))
            assert flags & os.O_EXCL
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    before = os.umask(0)
    try:
        plant(tmp_path)
    finally:
        os.umask(before)
    [(name, mode_at_first)] = seen
    assert name.startswith("ca-key.pem.")
    assert mode_at_first == 0o600


async def test_there_is_no_authority(tmp_path: Path) -> None:
    sentence = await refused("server", "localhost", "--ca-dir", "nowhere", cwd=tmp_path, status=ExitCode.IO)
    assert sentence.startswith(
        f"pyipc: there is no CA in nowhere: {os.path.join('nowhere', 'ca.pem')} is missing; make"
    )
    assert "pyipc cert ca nowhere" in sentence
    plant(tmp_path)
    (tmp_path / "ca-key.pem").unlink()
    assert "ca-key.pem is missing" in await refused("client", "ada", cwd=tmp_path, status=ExitCode.IO)


async def test_an_authority_that_has_expired(tmp_path: Path) -> None:
    plant(tmp_path, age=20 * DAY)
    sentence = await refused("client", "ada", cwd=tmp_path, status=ExitCode.USAGE)
    assert sentence.startswith("pyipc: the CA of ca.pem cannot vouch for this: it expired on 20")
    assert "make a new one in another directory" in sentence


async def test_a_name_that_the_authority_may_not_vouch_for(tmp_path: Path) -> None:
    await cert("ca", "--only", "example.internal", cwd=tmp_path)
    sentence = await refused("client", "ada", cwd=tmp_path, status=ExitCode.USAGE)
    assert "it is confined to example.internal, and 'ada' is not within that" in sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["server"], "the following arguments are required: NAME"),
        (["server", "*.example.internal"], "stands for many hosts"),
        (["server", "localhost", "tls://localhost:1"], "write the name alone"),
        (["client", "ada lovelace"], "'ada lovelace' is not the name of a client"),
        (["client", "ada", "--days", "0"], "'0' is not a whole number above zero"),
        (["client", "ada", "--days", "36501"], "a hundred years"),
        (["ca", "--name", "a\nb"], "is not the name of a CA"),
        (["ca", "--name", "x" * 65], "1 to 64 characters"),
        (["ca", "--only", "10.0.0.1/8"], "is not a network"),
        (["show"], "the following arguments are required: FILE"),
        ([], "the following arguments are required: COMMAND"),
        (["forge"], "invalid choice: 'forge'"),
    ],
)
def test_wrong_usage_is_a_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        make_parser().parse_args(["cert", *arguments])
    assert ended.value.code == ExitCode.USAGE
    assert sentence in capsys.readouterr().err


def _another_key(directory: Path, authority: Credential) -> None:
    key = make_authority("another", lifetime=DAY, now=datetime.datetime.now(datetime.UTC)).key_pem()
    (directory / "ca-key.pem").write_bytes(key)


def _a_protected_key(directory: Path, authority: Credential) -> None:
    protection = serialization.BestAvailableEncryption(b"secret")
    pem = authority.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    (directory / "ca-key.pem").write_bytes(pem)


def _a_key_that_cannot_sign(directory: Path, authority: Credential) -> None:
    pem = x25519.X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "ca-key.pem").write_bytes(pem)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_another_key, "ca-key.pem is not the key of "),
        (_a_protected_key, "ca-key.pem is protected by a pass phrase"),
        (_a_key_that_cannot_sign, "ca-key.pem has a key that cannot sign"),
        (lambda directory, _: (directory / "ca-key.pem").write_text("x"), "ca-key.pem has no private key that can be"),
        (lambda directory, _: (directory / "ca.pem").write_text("x"), "ca.pem has no certificate in PEM form"),
        (
            lambda directory, _: (directory / "ca.pem").write_text(
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
            ),
            "ca.pem is damaged",
        ),
        (lambda directory, _: (directory / "ca.pem").write_bytes(bytes(5 * 1024 * 1024)), "ca.pem is far too large"),
    ],
)
def test_an_authority_that_is_spoiled(spoil: Any, sentence: str, tmp_path: Path) -> None:
    spoil(tmp_path, plant(tmp_path))
    with pytest.raises(Failed) as caught:
        read_authority(Pair.of(str(tmp_path), "ca"))
    assert caught.value.code is ExitCode.USAGE
    assert sentence in caught.value.sentence


async def test_an_authority_that_is_spoiled_is_told(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / "ca-key.pem").write_text("x")
    sentence = await refused("client", "ada", cwd=tmp_path, status=ExitCode.USAGE)
    assert sentence == "pyipc: ca-key.pem has no private key that can be read"


async def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    sentence = await refused("ca", os.path.join("file", "certs"), cwd=tmp_path, status=ExitCode.IO)
    assert sentence.startswith(f"pyipc: cannot make {os.path.join('file', 'certs')}: ")


@POSIX
@NOT_ROOT
async def test_a_directory_that_is_not_ours_to_write(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(0o500)
    sentence = await refused("ca", "closed", cwd=tmp_path, status=ExitCode.IO)
    assert sentence == "pyipc: cannot write closed/ca-key.pem: Permission denied"


# --- show ---


async def test_one_that_has_expired_is_told_and_is_a_failure(tmp_path: Path) -> None:
    plant(tmp_path, age=20 * DAY)
    result = await run("cert", "show", "ca.pem", cwd=tmp_path)
    assert result.status == ExitCode.REFUSED
    assert "  validity     expired on 20" in result.out
    assert result.err.startswith("pyipc: the certificate for 'a CA' in ca.pem expired on 20")
    record = json.loads((await run("cert", "show", "ca.pem", "--json", cwd=tmp_path)).out)
    assert (record["state"], record["days_left"]) == ("expired", -11)


async def test_one_that_is_not_valid_yet(tmp_path: Path) -> None:
    plant(tmp_path, age=-5 * DAY)
    result = await run("cert", "show", "ca.pem", cwd=tmp_path)
    assert result.status == ExitCode.REFUSED
    assert "is not valid before" in result.err


async def test_one_that_soon_expires_is_a_warning(tmp_path: Path) -> None:
    plant(tmp_path, lifetime=10 * DAY)
    result = await run("cert", "show", "ca.pem", cwd=tmp_path)
    assert result.status == 0
    assert result.err.endswith("9 days left; renew it soon\n")
    assert (await run("cert", "show", "ca.pem", "--quiet", cwd=tmp_path)).err == ""


async def test_several_in_a_file_and_files_without_one(tmp_path: Path) -> None:
    one, two = plant(tmp_path / "one", lifetime=90 * DAY), plant(tmp_path / "two", lifetime=90 * DAY)
    (tmp_path / "both.pem").write_bytes(one.certificate_pem() + two.key_pem() + two.certificate_pem())
    (tmp_path / "key.pem").write_bytes(one.key_pem())
    result = await run("cert", "show", "missing.pem", "key.pem", "both.pem", "--json", cwd=tmp_path)
    assert [json.loads(line)["file"] for line in result.lines] == ["both.pem", "both.pem"]
    assert "PRIVATE KEY" not in result.out + result.err
    assert result.err.splitlines() == [
        "pyipc: cannot read missing.pem: No such file or directory",
        "pyipc: key.pem has a private key and no certificate; name the file of a certificate",
    ]
    assert result.status == ExitCode.USAGE


async def test_names_in_a_certificate_are_not_obeyed_by_the_terminal(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    hostile = make_authority("\x1b[2J\nroot", lifetime=90 * DAY, now=now)
    (tmp_path / "hostile.pem").write_bytes(hostile.certificate_pem())
    result = await run("cert", "show", "hostile.pem", cwd=tmp_path)
    assert result.status == 0
    assert "\x1b" not in result.out
    assert r"  subject      \x1b[2J\nroot" in result.lines
