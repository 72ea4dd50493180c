"""This implementation breaks the rules of the document, one by one, towards a node."""

import pytest
from hcp_reader import frames as fr
from hcp_reader.frames import Frame, control
from helpers import OPEN_BULK, OPEN_ECHO, Connect, ask, check_padding

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


@pytest.mark.parametrize(
    "header",
    ["01 00 00000000 00001001", "05 00 00000001 00010001", "06 00 00000001 00010009", "80 00 00000000 ffffffff"],
)
def test_a_length_beyond_the_limit_is_an_error_as_soon_as_the_header_is_there(dialled: Connect, header: str) -> None:
    tcp = dialled()
    tcp.session.conns[0].tls.write(bytes.fromhex(header))
    assert tcp.event("closed").code == 1
