"""Processes of Python that talk over a private Tor network of real relays."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from conftest import ECHO

import hcp

pytestmark = pytest.mark.timeout(240)
PEER = Path(__file__).with_name("tor_peer.py")


@asynccontextmanager
async def peer_process(testnet: Path, folder: Path) -> AsyncGenerator[hcp.OnionAddress, None]:
    """Runs an echo service in another process; gives its address once it can be reached."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, PEER, testnet, folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield hcp.OnionAddress((await process.stdout.readline()).decode().strip())
        process.stdin.close()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_two_processes_talk(testnet: Path, tmp_path: Path) -> None:
    private = await hcp.PrivateNetwork.load(testnet)
    assert private.authorities
    progress: list[hcp.BootstrapProgress] = []
    async with (
        peer_process(testnet, tmp_path / "peer") as address,
        await hcp.TorNetwork.bootstrap(
            tmp_path / "state", tmp_path / "cache", private_network=private, on_progress=progress.append
        ) as network,
    ):
        assert network.progress().value.percent == 100
        assert progress
        assert progress[0].percent <= progress[-1].percent
        async with (
            await hcp.Node.bind(hcp.Identity.generate(), network) as node,
            await node.connect(address) as session,
            await session.open(ECHO) as stream,
        ):
            assert session.peer == address
            for length in (5, 100_000, hcp.MAX_MESSAGE):
                message = bytes(range(256)) * (length // 256) + bytes(length % 256)
                await stream.send(message)
                assert await stream.recv() == message
            # Apart from all other circuits, and without a name.
            other = await hcp.Node.bind(hcp.Identity.generate(), network.isolated())
            anonymous = await other.connect_anonymously(address)
            second = await anonymous.open(ECHO)
            await second.send(b"who am I?")
            assert await second.recv() == b"who am I?"
            await anonymous.shutdown()
            await other.shutdown()


async def test_state_directory_is_free_after_shutdown(testnet: Path, tmp_path: Path) -> None:
    private = await hcp.PrivateNetwork.load(testnet)
    state, cache = tmp_path / "state", tmp_path / "cache"
    network = await hcp.TorNetwork.bootstrap(state, cache, private_network=private)
    with pytest.raises(hcp.errors.InUseError) as caught:
        await hcp.TorNetwork.bootstrap(state, cache, private_network=private)
    assert caught.value.reason == "StateLocked"
    await network.shutdown()
    with pytest.raises(hcp.errors.ClosedError):
        await hcp.Node.bind(hcp.Identity.generate(), network)
    await (await hcp.TorNetwork.bootstrap(state, cache, private_network=private)).shutdown()


async def test_address_that_nobody_serves_is_unreachable(testnet: Path, tmp_path: Path) -> None:
    private = await hcp.PrivateNetwork.load(testnet)
    async with await hcp.TorNetwork.bootstrap(
        tmp_path / "state", tmp_path / "cache", private_network=private, connect_deadline=20
    ) as network:
        node = await hcp.Node.bind(hcp.Identity.generate(), network)
        with pytest.raises(hcp.errors.UnreachableError):
            await node.connect(hcp.Identity.generate().address)
        await node.shutdown()


async def test_network_out_of_reach_times_out(tmp_path: Path) -> None:
    nobody = hcp.PrivateAuthority(
        v3_identity=bytes(20),
        rsa_identity=bytes(range(20)),
        ed25519_identity=hcp.Identity.generate().address.public_key,
        or_address="127.0.0.1:1",
    )
    with pytest.raises(hcp.errors.TimedOutError):
        await hcp.TorNetwork.bootstrap(
            tmp_path / "state", tmp_path / "cache", private_network=hcp.PrivateNetwork([nobody]), bootstrap_deadline=1
        )
    with pytest.raises(hcp.errors.InvalidInputError):
        hcp.PrivateAuthority(v3_identity=b"", rsa_identity=b"", ed25519_identity=b"", or_address="127.0.0.1:1")
    with pytest.raises(hcp.errors.StorageError):
        await hcp.PrivateNetwork.load(tmp_path / "missing")
