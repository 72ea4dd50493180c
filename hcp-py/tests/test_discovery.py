"""Addresses that are hidden from everybody but the clients whose discovery keys they list."""

from pathlib import Path

import pytest
from conftest import ECHO, echo

import hcp
from hcp.errors import AuthenticationError, InvalidInputError


def test_keys_print_and_parse_as_those_of_c_tor() -> None:
    key = hcp.DiscoveryKey.generate()
    text = str(key.public_key)
    assert text.startswith("descriptor:x25519:")
    assert len(text) == 70
    assert hcp.DiscoveryPublicKey(text.lower()) == key.public_key
    assert hcp.DiscoveryPublicKey.from_bytes(key.public_key.as_bytes()) == key.public_key
    assert hcp.DiscoveryKey.from_secret_bytes(key.secret_bytes()).public_key == key.public_key
    assert len({key.public_key, hcp.DiscoveryKey.generate().public_key}) == 2
    address = hcp.Identity.generate().address
    assert key.c_tor_line(address).startswith(f"{str(address).removesuffix('.onion')}:descriptor:x25519:")
    assert [repr(key), repr(key.public_key)] == ["DiscoveryKey([redacted])", "DiscoveryPublicKey([redacted])"]


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="descriptor:x25519"):
        hcp.DiscoveryPublicKey("nonsense")
    with pytest.raises(InvalidInputError):
        hcp.DiscoveryPublicKey.from_bytes(bytes(32))
    with pytest.raises(InvalidInputError):
        hcp.DiscoveryKey.from_secret_bytes(bytes(31))


async def test_a_key_file_keeps_a_discovery_key(tmp_path: Path) -> None:
    key, file = hcp.DiscoveryKey.generate(), hcp.KeyFile(tmp_path / "discovery")
    await file.save(key, hcp.Protection.plain())
    assert (await file.load(hcp.DiscoveryKey, hcp.Protection.plain())).secret_bytes() == key.secret_bytes()
    with pytest.raises(AuthenticationError):
        await file.load(hcp.Identity, hcp.Protection.plain())


async def test_a_restricted_node_is_found_by_its_clients_alone() -> None:
    network, key = hcp.MemoryNetwork(), hcp.DiscoveryKey.generate()
    server = await hcp.Node.bind(
        hcp.Identity.generate(), network, {ECHO: (hcp.Access.ANYONE, echo)}, restricted_to=[key.public_key]
    )
    listed = await hcp.Node.bind(hcp.Identity.generate(), network.with_discovery_key(server.address, key))
    async with await listed.connect(server.address) as session, await session.open(ECHO) as stream:
        await stream.send(b"found")
        assert await stream.recv() == b"found"
    stranger = await hcp.Node.bind(hcp.Identity.generate(), network)
    with pytest.raises(AuthenticationError, match="hidden"):
        await stranger.connect(server.address)
    # Others are let in while it runs, and those who were are not any more.
    later = hcp.DiscoveryKey.generate()
    server.restrict_to([later.public_key])
    with pytest.raises(AuthenticationError, match="hidden"):
        await listed.connect(server.address)
    found = await hcp.Node.bind(hcp.Identity.generate(), network.with_discovery_key(server.address, later))
    await found.connect(server.address)
    with pytest.raises(InvalidInputError, match="1 to 160"):
        server.restrict_to([])


async def test_a_restriction_that_cannot_be_had_is_refused(tmp_path: Path) -> None:
    identity, key = hcp.Identity.generate(), hcp.DiscoveryKey.generate().public_key
    network = hcp.MemoryNetwork()
    for clients in ([], [key] * (hcp.MAX_DISCOVERY_CLIENTS + 1)):
        with pytest.raises(InvalidInputError):
            await network.listen_restricted(identity, clients)
    assert await (await network.listen_restricted(identity, [key])).reachable()
    local = hcp.LocalNetwork(tmp_path)
    with pytest.raises(InvalidInputError, match="cannot restrict"):
        await local.listen_restricted(identity, [key])
