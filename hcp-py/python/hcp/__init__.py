"""HCP, the Hidden Communication Protocol: people and services that talk over Tor onion services.

A node that answers, and one that asks. On Tor only the network differs::

    import asyncio
    import hcp

    async def echo(stream: hcp.Stream, session: hcp.Session) -> None:
        async for message in stream:
            await stream.send(message)

    async def main() -> None:
        network = hcp.MemoryNetwork()
        protocols = {"example/echo/1": (hcp.Access.ANYONE, echo)}
        async with (
            await hcp.Node.bind(hcp.Identity.generate(), network, protocols) as server,
            await hcp.Node.bind(hcp.Identity.generate(), network) as client,
            await client.connect(server.address) as session,
            await session.open("example/echo/1") as stream,
        ):
            await stream.send(b"hello")
            print(await stream.recv())

    asyncio.run(main())

Everything that takes time is a coroutine; cancelling its task stops the work behind it. Times are in seconds.
Errors are in `hcp.errors`, key directories of C tor in `hcp.ctor`.
"""

from hcp import ctor, errors
from hcp._hcp import (
    ACCEPT_QUEUE,
    HANDSHAKE_TIMEOUT,
    HCP_PORT,
    MAX_HANDSHAKES,
    MAX_KEEPALIVE,
    MAX_MESSAGE,
    MAX_PROTOCOL_NAME,
    MAX_SESSIONS,
    MAX_STREAMS,
    RESET_ANONYMOUS,
    RESET_BUSY,
    RESET_DROPPED,
    RESET_UNKNOWN_PROTOCOL,
    STREAM_WINDOW,
    Access,
    Argon2Cost,
    BootstrapProgress,
    Identity,
    KeyFile,
    ListenerStatus,
    LocalNetwork,
    LogKey,
    MemoryNetwork,
    Network,
    Node,
    OnionAddress,
    Passphrase,
    PrivateAuthority,
    PrivateNetwork,
    Protection,
    Session,
    Stream,
    StreamSender,
    TorNetwork,
    Watch,
    __version__,
)
from hcp.errors import ErrorKind, HcpError

__all__ = [
    "ACCEPT_QUEUE",
    "HANDSHAKE_TIMEOUT",
    "HCP_PORT",
    "MAX_HANDSHAKES",
    "MAX_KEEPALIVE",
    "MAX_MESSAGE",
    "MAX_PROTOCOL_NAME",
    "MAX_SESSIONS",
    "MAX_STREAMS",
    "RESET_ANONYMOUS",
    "RESET_BUSY",
    "RESET_DROPPED",
    "RESET_UNKNOWN_PROTOCOL",
    "STREAM_WINDOW",
    "Access",
    "Argon2Cost",
    "BootstrapProgress",
    "ErrorKind",
    "HcpError",
    "Identity",
    "KeyFile",
    "ListenerStatus",
    "LocalNetwork",
    "LogKey",
    "MemoryNetwork",
    "Network",
    "Node",
    "OnionAddress",
    "Passphrase",
    "PrivateAuthority",
    "PrivateNetwork",
    "Protection",
    "Session",
    "Stream",
    "StreamSender",
    "TorNetwork",
    "Watch",
    "__version__",
    "ctor",
    "errors",
]
