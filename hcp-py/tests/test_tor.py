"""Processes of Python that talk over a private Tor network of real relays."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import ECHO
from people import contact_is, message_is, person, received, transfer_is

import hcp

pytestmark = pytest.mark.timeout(240)
PEER = Path(__file__).with_name("tor_peer.py")
BOT = Path(__file__).with_name("tor_bot.py")
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parents[2] / "target"))


@asynccontextmanager
async def peer_process(program: Path, testnet: Path, folder: Path) -> AsyncGenerator[hcp.OnionAddress, None]:
    """Runs a program that prints its address in another process, until the end of its input."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, testnet, folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
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
        peer_process(PEER, testnet, tmp_path / "peer") as address,
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


async def test_a_restricted_address_is_found_with_its_key_alone(testnet: Path, tmp_path: Path) -> None:
    private = await hcp.PrivateNetwork.load(testnet)
    identity, key = hcp.Identity.generate(), hcp.DiscoveryKey.generate()
    async with (
        await hcp.TorNetwork.bootstrap(tmp_path / "a", tmp_path / "ac", private_network=private) as far,
        await hcp.TorNetwork.bootstrap(
            tmp_path / "b", tmp_path / "bc", private_network=private, discovery_keys=[(identity.address, key)]
        ) as near,
        await hcp.Node.bind(identity, far, restricted_to=[key.public_key]) as server,
        await hcp.Node.bind(hcp.Identity.generate(), near) as client,
    ):
        assert await server.reachable()
        await (await client.connect_anonymously(server.address)).shutdown()
        near.remove_discovery_key(server.address)
        with pytest.raises(hcp.errors.AuthenticationError):
            await client.connect_anonymously(server.address)
        near.set_discovery_key(server.address, key)
        await (await client.connect_anonymously(server.address)).shutdown()


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


@asynccontextmanager
async def online(testnet: Path, folder: Path, name: str) -> AsyncGenerator[hcp.Messenger, None]:
    """A messenger on the private Tor network."""
    private = await hcp.PrivateNetwork.load(testnet)
    async with (
        await hcp.TorNetwork.bootstrap(folder / "state", folder / "cache", private_network=private) as network,
        person(folder, name, network) as messenger,
    ):
        yield messenger


async def test_two_processes_chat(testnet: Path, tmp_path: Path) -> None:
    async with peer_process(BOT, testnet, tmp_path / "bot") as address, online(testnet, tmp_path, "User") as user:
        await user.request(address, "Bot", "Please echo")
        for text in ("first", "second\nwith two lines", "\N{ONION}" * 8000):
            id = await user.send(address, text)
            assert (await received(user, text)).contact == address
            await message_is(user, id, hcp.MessageState.DELIVERED)


class Chat:
    """A running `hcp-chat daemon`, driven by lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def tells(self, **expected: object) -> dict[str, Any]:
        """Waits for a line with these fields."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            told: dict[str, Any] = json.loads(line)
            if expected.items() <= told.items():
                return told
        raise AssertionError(f"hcp-chat ended before it told {expected}")

    async def ask(self, command: str, **arguments: object) -> Any:
        """Gives a command and waits for its result."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"id": command, "command": command, **arguments}).encode() + b"\n")
        await self.process.stdin.drain()
        return (await self.tells(reply=command))["ok"]


@asynccontextmanager
async def chat_daemon(testnet: Path, folder: Path) -> AsyncGenerator[Chat, None]:
    """Runs hcp-chat on the private Tor network."""
    (folder / "passphrase").write_text("correct horse\n")
    common = [f"--home={folder / 'chat'}", f"--private-tor={testnet}", f"--passphrase-file={folder / 'passphrase'}"]
    program = TARGET / "debug" / "hcp-chat"
    init = await asyncio.create_subprocess_exec(program, *common, "init", "--name=Carol")
    assert await init.wait() == 0
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(program, *common, "daemon", stdin=pipe, stdout=pipe, limit=1 << 20)
    try:
        yield Chat(process)
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_python_chats_with_hcp_chat(testnet: Path, tmp_path: Path) -> None:
    async with chat_daemon(testnet, tmp_path) as carol, online(testnet, tmp_path, "Dave") as dave:
        address = hcp.OnionAddress((await carol.tells(event="ready"))["address"])
        await carol.tells(event="reachable")
        await dave.request(address, "Carol", "from Python")
        asked = await carol.tells(event="contact")
        assert (asked["contact"]["state"], asked["contact"]["greeting"]) == ("pending", "from Python")
        await carol.ask("contact_accept", contact=str(dave.address))
        await contact_is(dave, address, hcp.ContactState.ACCEPTED)
        assert (await dave.contact(address)).name == "Carol"

        id = await dave.send(address, "hello, Rust")
        told = (await carol.tells(event="message_received"))["message"]
        assert (told["text"], told["id"]) == ("hello, Rust", str(id))
        await message_is(dave, id, hcp.MessageState.DELIVERED)
        await carol.ask("send", contact=str(dave.address), text="hello, Python")
        assert (await received(dave, "hello, Python")).contact == address

        content = os.urandom(500_000)
        (tmp_path / "file.bin").write_bytes(content)
        transfer = await dave.offer_file(address, tmp_path / "file.bin")
        await carol.tells(event="transfer_offered")
        await carol.ask("file_accept", transfer=str(transfer), path=str(tmp_path / "saved.bin"))
        await transfer_is(dave, transfer, hcp.TransferState.DONE)
        assert (tmp_path / "saved.bin").read_bytes() == content
