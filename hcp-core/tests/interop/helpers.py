"""What the tests with the library have in common."""

from collections.abc import Callable

from hcp_reader import frames as fr
from hcp_reader.drive import Tcp
from hcp_reader.frames import LIVE_STREAM, control, padme
from hcp_reader.schedule import MAX_FRAGMENT

Connect = Callable[..., Tcp]
"""Makes a session with the node; the keyword arguments are those of Dialling."""

OPEN_ECHO = control(fr.OPEN, 1, protocol="test/echo/1")
OPEN_BULK = control(fr.OPEN, 1, protocol="test/echo/1", priority=1)


def ask(tcp: Tcp, protocol: str, *messages: bytes, priority: int = LIVE_STREAM) -> int:
    stream = tcp.session.open(protocol, priority)
    for message in messages:
        tcp.session.send(stream, message)
    return stream


def barrier(tcp: Tcp) -> None:
    """Waits until the node has answered all that was sent before."""
    tcp.session.ping()
    tcp.event("pong")


def check_padding(records: list[int], only_messages: bool) -> None:
    """Whether records of these lengths can be flushes that are padded as section 9 says.

    TLS cuts a flush at 16 KiB, so flushes show as whole fragments with at most one shorter record behind them.
    """
    assert records[0] == 1_024
    whole = 0
    for length in records:
        if length == MAX_FRAGMENT:
            whole += 1
            continue
        if only_messages:
            # 65,536 are four fragments; the other classes are one record each.
            assert length in (1_024, 4_096), records
        else:
            # Any of the whole fragments before it may belong to the same flush, which has at most four.
            lengths = {count * MAX_FRAGMENT + length for count in range(min(whole, 3) + 1)}
            assert length == 1_024 or any(padme(size) == size for size in lengths), records
        whole = 0
