"""This implementation breaks the rules of the document, one by one, towards a node."""

import pytest
from conftest import Rust
from hcp_reader import frames as fr
from hcp_reader import handshake as hs
from hcp_reader.drive import PATIENCE, connect
from hcp_reader.frames import Frame, control
from hcp_reader.handshake import vector
from hcp_reader.schedule import CHANGE_CIPHER_SPEC, HANDSHAKE
from hcp_reader.tls13 import MAX_UPDATES, Client
from helpers import OPEN_BULK, OPEN_ECHO, Connect, ask, barrier, check_padding

RESET_ECHO = control(fr.RESET, 1, code=1_024)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([Frame(13)], id="unknown kind"),
        pytest.param([Frame(fr.PING, 0, bytes(8), 1)], id="flag"),
        pytest.param([Frame(fr.PING, 1, bytes(8))], id="PING on a stream"),
        pytest.param([Frame(fr.PING, 0, bytes(7))], id="short PING"),
        pytest.param([Frame(fr.PONG, 0, bytes(8))], id="PONG that answers nothing"),
        pytest.param([control(fr.HELLO, window=655_360)], id="HELLO"),
        pytest.param([control(fr.PROOF, window=655_360)], id="a second PROOF"),
        pytest.param([Frame(fr.JOIN, 0, bytes(52))], id="JOIN"),
        pytest.param([Frame(fr.DATA, 0)], id="DATA on stream 0"),
        pytest.param([Frame(fr.DATA, 1)], id="DATA never opened"),
        pytest.param([control(fr.CREDIT, 2, bytes=1)], id="CREDIT never opened"),
        pytest.param([control(fr.RESET, 9, code=1)], id="RESET never opened"),
        pytest.param([control(fr.OPEN, 2, protocol="test/echo/1")], id="OPEN even"),
        pytest.param([OPEN_ECHO, OPEN_ECHO], id="OPEN twice"),
        pytest.param([control(fr.OPEN, 1)], id="OPEN without a name"),
        pytest.param([control(fr.OPEN, 1, protocol="a" * 256)], id="OPEN with a long name"),
        pytest.param([Frame(fr.OPEN, 1, b"\x0a\x01\xff")], id="OPEN with what is no text"),
        pytest.param([Frame(fr.OPEN, 1, b"\x0a\x05ab")], id="OPEN cut short"),
        pytest.param([control(fr.OPEN, n, protocol="test/hold/1") for n in range(1, 67, 2)], id="too many streams"),
        pytest.param([OPEN_ECHO, fr.bulk(1, 0, b"")], id="BULK on another stream"),
        pytest.param([OPEN_BULK, Frame(fr.DATA, 1)], id="DATA on a bulk stream"),
        pytest.param([OPEN_BULK, Frame(fr.BULK, 1, bytes(7))], id="BULK without a place"),
        pytest.param([OPEN_ECHO, Frame(fr.DATA, 1, b"", fr.FIN), Frame(fr.DATA, 1)], id="DATA behind FIN"),
        pytest.param([OPEN_ECHO, Frame(fr.DATA, 1, b"", fr.FIN | fr.MORE)], id="FIN and MORE"),
        pytest.param([OPEN_ECHO, Frame(fr.DATA, 1, b"x", fr.FIN)], id="FIN with a payload"),
        pytest.param([OPEN_ECHO, Frame(fr.DATA, 1, b"", fr.MORE), Frame(fr.DATA, 1, b"", fr.FIN)], id="FIN inside"),
        pytest.param([OPEN_ECHO, *[Frame(fr.DATA, 1, bytes(60_000), fr.MORE)] * 9], id="a message too long"),
        pytest.param(
            [control(fr.OPEN, 1, protocol="test/hold/1"), *[Frame(fr.DATA, 1, bytes(60_000))] * 12], id="beyond credit"
        ),
        pytest.param([OPEN_ECHO, control(fr.CREDIT, 1, bytes=8_388_608 - 655_359)], id="too much credit"),
        pytest.param([OPEN_ECHO, control(fr.CREDIT, 1, bytes=2**64 - 1)], id="far too much credit"),
        pytest.param([OPEN_ECHO, control(fr.CREDIT, 1, received=1)], id="received of what is not bulk"),
        pytest.param([OPEN_BULK, control(fr.CREDIT, 1, received=1)], id="received of what was not sent"),
        pytest.param([OPEN_BULK, fr.bulk(1, 0, b"", fr.FIN), fr.bulk(1, 1, b"")], id="BULK behind FIN"),
        pytest.param([OPEN_BULK, fr.bulk(1, 1, b""), fr.bulk(1, 0, b"", fr.FIN)], id="BULK that is behind FIN"),
        pytest.param([OPEN_BULK, fr.bulk(1, 2**64 - 1, b"")], id="the place that no end can follow"),
        pytest.param([OPEN_ECHO, RESET_ECHO, Frame(fr.DATA, 1, b"x", fr.FIN)], id="FIN with a payload, once over"),
        pytest.param([OPEN_ECHO, RESET_ECHO, Frame(fr.DATA, 1, b"", fr.FIN | fr.MORE)], id="FIN and MORE, once over"),
        pytest.param([OPEN_ECHO, control(fr.DRAIN), control(fr.DRAIN)], id="a second DRAIN"),
        pytest.param([OPEN_ECHO, control(fr.DRAIN), control(fr.OPEN, 3, protocol="test/echo/1")], id="OPEN, drained"),
        pytest.param([Frame(200)] * 4_000, id="a flood of optional frames"),
        pytest.param([OPEN_ECHO, *[control(fr.CREDIT, 1)] * 4_000], id="a flood of empty credit"),
    ],
)
def test_a_broken_rule_is_answered_by_close_with_code_protocol(dialled: Connect, frames: list[Frame]) -> None:
    tcp, other = dialled(), dialled()
    tcp.session._highest[1] = 99  # pyright: ignore[reportPrivateUsage]
    for frame in frames:
        tcp.session.raw(frame)
    assert tcp.event("closed").code == 1
    tcp.gone()
    assert tcp.session.conns[0].tls.closed, "close_notify is missing"
    check_padding(tcp.session.conns[0].tls.records, False)
    # Another session of the same node is not harmed.
    stream = ask(other, "test/echo/1", b"unharmed")
    assert other.message(stream) == b"unharmed"


@pytest.mark.parametrize("asks", [False, True])
def test_a_flood_of_key_updates_ends_a_session(dialled: Connect, asks: bool) -> None:
    tcp = dialled()
    tls = tcp.session.conns[0].tls
    for _ in range(3):
        for _ in range(MAX_UPDATES):
            tls.update_key(asks)
        barrier(tcp)
    for _ in range(MAX_UPDATES + 1):
        tls.update_key(asks)
    tcp.flush()
    assert tcp.event("closed").code in (1, -1)


@pytest.mark.parametrize(
    "header",
    ["01 00 00000000 00001001", "05 00 00000001 00010001", "06 00 00000001 00010009", "80 00 00000000 ffffffff"],
)
def test_a_length_beyond_the_limit_is_an_error_as_soon_as_the_header_is_there(dialled: Connect, header: str) -> None:
    tcp = dialled()
    tcp.session.conns[0].tls.write(bytes.fromhex(header))
    assert tcp.event("closed").code == 1


# Header, two bytes of alert, its kind, the tag.
ENCRYPTED_ALERT = 5 + 2 + 1 + 16
X25519, ECDSA, X509 = b"\0\x1d", b"\4\3", b"\0"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({hs.SUPPORTED_VERSIONS: vector(1, b"\3\3")}, id="TLS 1.2"),
        pytest.param({hs.SUPPORTED_VERSIONS: None}, id="no version"),
        pytest.param({hs.APPLICATION_PROTOCOLS: vector(2, vector(1, b"hcp/2"))}, id="another protocol"),
        pytest.param({hs.APPLICATION_PROTOCOLS: vector(2, vector(1, b"h2") + vector(1, b"http/1.1"))}, id="HTTP"),
        pytest.param({hs.APPLICATION_PROTOCOLS: None}, id="no protocol"),
        pytest.param({hs.SIGNATURE_ALGORITHMS: vector(2, ECDSA)}, id="no ed25519"),
        pytest.param({hs.SERVER_CERTIFICATE_TYPE: vector(1, X509)}, id="certificates"),
        pytest.param({hs.SERVER_CERTIFICATE_TYPE: None}, id="no raw keys"),
        pytest.param({hs.KEY_SHARE: vector(2, b"")}, id="no share"),
        pytest.param(
            {hs.SUPPORTED_GROUPS: vector(2, X25519), hs.KEY_SHARE: vector(2, X25519 + vector(2, b"\x09" + bytes(31)))},
            id="X25519 alone",
        ),
    ],
)
def test_a_client_that_offers_less_is_told_nothing(rust: Rust, changes: dict[int, bytes | None]) -> None:
    with connect(rust.folder, rust.node) as connection:
        connection.settimeout(PATIENCE)
        connection.sendall(Client(changes=changes).take())
        answer = b""
        try:
            while data := connection.recv(1 << 16):
                answer += data
        except ConnectionError:
            pass
    # At most ServerHello, which shows random values alone, the compatibility record behind it, and an alert.
    records = list[tuple[int, int]]()
    while answer:
        length = 5 + int.from_bytes(answer[3:5], "big")
        records.append((answer[0], length))
        answer = answer[length:]
    shown = [length for kind, length in records if kind not in (HANDSHAKE, CHANGE_CIPHER_SPEC)]
    assert len(shown) <= 1 and all(length <= ENCRYPTED_ALERT for length in shown), records
    assert sum(kind == HANDSHAKE for kind, _ in records) <= 1


def test_a_client_that_offers_more_gets_what_the_document_says(rust: Rust) -> None:
    offers: list[tuple[list[int], dict[int, bytes | None]]] = [
        ([0x1302, 0xC02F], {0x0A0A: b"unknown"}),
        ([0x1303], {hs.APPLICATION_PROTOCOLS: vector(2, vector(1, b"h2") + vector(1, hs.ALPN))}),
        (
            [0x1301],
            {hs.SUPPORTED_GROUPS: vector(2, X25519 + hs.HYBRID), hs.SUPPORTED_VERSIONS: vector(1, b"\3\3\3\4")},
        ),
        ([0x1301], {45: b"\1\1", hs.SIGNATURE_ALGORITHMS: vector(2, ECDSA + hs.ED25519)}),
    ]
    for suites, changes in offers:
        with connect(rust.folder, rust.node) as connection:
            # It reads no extension that it did not ask for, no ticket, and no other group.
            client = Client(suites, changes)
            connection.sendall(client.take())
            while not client.received:
                client.feed(connection.recv(1 << 16))
            assert client.server_key == rust.node and client.suite == suites[0]
