"""Services that several nodes speak for: what an owner issues, what a replica shows, what a dialler refuses."""

import time
from pathlib import Path

import pytest
from conftest import ECHO, echo

import hcp
from hcp.errors import (
    AuthenticationError,
    ClosedError,
    InUseError,
    InvalidInputError,
    ProtocolViolationError,
    RefusedError,
)

DAY = 86_400
NOW = int(time.time())
TODAY = hcp.Validity(NOW - DAY, NOW + DAY)


class Owner:
    """Who holds the identity of a service."""

    def __init__(self) -> None:
        self.service = hcp.Identity.generate()
        self.key = hcp.OwnerKey.generate()
        self.certificate = hcp.OwnerCertificate.issue(self.service, self.key.public_key, TODAY)

    def credentials(self, serial: int = 7, lowest: int = 5, validity: hcp.Validity = TODAY) -> hcp.ReplicaCredentials:
        """What lets one more replica speak for the service."""
        key = hcp.SessionKey.generate()
        address = self.service.address
        delegation = self.key.delegate(address, key.public_key, hcp.Round(serial, lowest, validity))
        return hcp.ReplicaCredentials(address, self.certificate, delegation, key)

    async def replica(self, network: hcp.Network, credentials: hcp.ReplicaCredentials) -> hcp.Node:
        """A node that serves the service, and nothing at its own address."""
        listener = await network.listen(self.service)
        assert await listener.reachable()
        service = hcp.Service(listener, credentials, {ECHO: (hcp.Access.ANYONE, echo)})
        with pytest.raises(InUseError):
            hcp.Service(listener, credentials, {})
        node = await hcp.Node.bind(hcp.Identity.generate(), network, services=[service])
        with pytest.raises(InUseError):
            await hcp.Node.bind(hcp.Identity.generate(), network, services=[service])
        return node


def test_what_an_owner_issues_comes_back_from_its_bytes() -> None:
    owner = Owner()
    credentials = owner.credentials()
    certificate, delegation = credentials.certificate.to_bytes(), credentials.delegation.to_bytes()
    assert (len(certificate), len(delegation)) == (hcp.OwnerCertificate.LEN, hcp.Delegation.LEN)
    assert hcp.OwnerCertificate.from_bytes(certificate) == owner.certificate == credentials.certificate
    assert hcp.Delegation.from_bytes(delegation) == credentials.delegation
    assert owner.certificate.owner_key == owner.key.public_key
    assert (owner.certificate.validity, credentials.delegation.validity) == (TODAY, TODAY)
    assert (TODAY.not_before, TODAY.not_after) == (NOW - DAY, NOW + DAY)
    assert (credentials.delegation.serial, credentials.delegation.lowest_serial) == (7, 5)
    key = credentials.session_key.public_key
    assert key == credentials.delegation.session_key == hcp.PublicKey.from_bytes(key.as_bytes())
    assert len({key, credentials.delegation.session_key, owner.key.public_key}) == 2
    assert credentials.service == owner.service.address
    seed = b"\x05" * 32
    assert hcp.OwnerKey.from_seed(seed).public_key == hcp.SessionKey.from_seed(seed).public_key
    for secret in (owner.key, credentials.session_key, credentials, key):
        assert "redacted" in repr(secret)


def test_what_cannot_be_issued_is_refused() -> None:
    with pytest.raises(InvalidInputError) as times:
        hcp.Validity(2, 1)
    assert times.value.reason == "EmptyTime"
    with pytest.raises(InvalidInputError) as floor:
        hcp.Round(4, 5, TODAY)
    assert floor.value.reason == "FloorAboveSerial"
    with pytest.raises(InvalidInputError) as key:
        hcp.PublicKey.from_bytes(b"\x01" + bytes(31))
    assert key.value.reason == "NotAKey"
    with pytest.raises(ProtocolViolationError):
        hcp.Delegation.from_bytes(bytes(127))
    owner, other = Owner(), Owner()
    credentials = owner.credentials()
    with pytest.raises(AuthenticationError) as foreign:
        hcp.ReplicaCredentials(
            other.service.address, credentials.certificate, credentials.delegation, credentials.session_key
        )
    assert foreign.value.reason == "ForeignService"
    old = owner.credentials(validity=hcp.Validity(NOW - DAY, NOW - DAY // 2))
    with pytest.raises(AuthenticationError) as expired:
        old.check(NOW)
    assert expired.value.reason == "Expired"
    old.check(NOW - DAY // 2 + hcp.CLOCK_SKEW)


def test_a_dialler_verifies_and_remembers_the_floor() -> None:
    owner, floors = Owner(), hcp.SerialFloors()
    service = owner.service.address

    def verify(credentials: hcp.ReplicaCredentials, floors: hcp.SerialFloors, key: bytes | None = None) -> int:
        certificate, delegation = credentials.certificate.to_bytes(), credentials.delegation.to_bytes()
        key = key or credentials.session_key.public_key.as_bytes()
        return hcp.Delegation.verify(service, certificate, delegation, key, NOW, floors).serial

    assert floors.floor(service) == 0
    assert verify(owner.credentials(7, 5), floors) == 7
    assert floors.export() == [(service, 5)]
    with pytest.raises(AuthenticationError) as below:
        verify(owner.credentials(4, 0), floors)
    assert below.value.reason == "BelowFloor"
    with pytest.raises(AuthenticationError) as other_key:
        verify(owner.credentials(), floors, bytes(32))
    assert other_key.value.reason == "OtherSessionKey"
    kept = hcp.SerialFloors()
    kept.import_(floors.export())
    kept.import_([(service, 3)])
    assert kept.floor(service) == 5
    kept.forget(service)
    assert verify(owner.credentials(4, 0), kept) == 4


async def test_key_files_hold_what_owners_and_replicas_need(tmp_path: Path) -> None:
    owner, plain = Owner(), hcp.Protection.plain()
    credentials = owner.credentials()
    await hcp.KeyFile(tmp_path / "owner").save(owner.key, plain)
    await hcp.KeyFile(tmp_path / "session").save(credentials.session_key, plain)
    await hcp.KeyFile(tmp_path / "replica").save(credentials, plain)
    assert (await hcp.KeyFile(tmp_path / "owner").load(hcp.OwnerKey, plain)).public_key == owner.key.public_key
    session = await hcp.KeyFile(tmp_path / "session").load(hcp.SessionKey, plain)
    assert session.public_key == credentials.session_key.public_key
    replica = await hcp.KeyFile(tmp_path / "replica").load(hcp.ReplicaCredentials, plain)
    assert replica.delegation == credentials.delegation
    with pytest.raises(AuthenticationError, match="another purpose"):
        await hcp.KeyFile(tmp_path / "owner").load(hcp.SessionKey, plain)


async def test_a_service_is_dialled_by_its_address() -> None:
    network, owner, floors = hcp.MemoryNetwork(), Owner(), hcp.SerialFloors()
    replica = await owner.replica(network, owner.credentials(7, 5))
    dialler = await hcp.Node.bind(hcp.Identity.generate(), network, floors=floors)
    async with await dialler.connect_anonymously(owner.service.address) as session:
        assert session.peer == owner.service.address
        assert session.delegation is not None
        assert session.delegation.serial == 7
        assert floors.floor(owner.service.address) == 5
        async with await session.open(ECHO) as stream:
            await stream.send(b"for the service")
            assert await stream.recv() == b"for the service"
    # The node's own address shares nothing with that of the service.
    async with await dialler.connect(replica.address) as own:
        assert own.delegation is None
        with pytest.raises(RefusedError):
            await (await own.open(ECHO)).recv()
    floors.import_([(owner.service.address, 8)])
    with pytest.raises(AuthenticationError) as withdrawn:
        await dialler.connect(owner.service.address)
    assert withdrawn.value.reason == "BelowFloor"
    # Both addresses are free when the node has been shut down.
    await replica.shutdown()
    await (await network.listen(owner.service)).shutdown()


async def test_a_running_node_takes_a_renewed_delegation() -> None:
    network, owner, floors = hcp.MemoryNetwork(), Owner(), hcp.SerialFloors()
    replica = await owner.replica(network, owner.credentials(7, 5))
    dialler = await hcp.Node.bind(hcp.Identity.generate(), network, floors=floors)
    old = await dialler.connect_anonymously(owner.service.address)
    replica.renew(owner.credentials(8, 8))
    new = await dialler.connect_anonymously(owner.service.address)
    assert old.delegation is not None and new.delegation is not None
    assert (old.delegation.serial, new.delegation.serial) == (7, 8)
    # The session that began before goes on, and says what has become of its delegation.
    for session in (old, new):
        async with await session.open(ECHO) as stream:
            await stream.send(b"for the service")
            assert await stream.recv() == b"for the service"
    new.check_delegation()
    with pytest.raises(AuthenticationError) as withdrawn:
        old.check_delegation()
    assert withdrawn.value.reason == "BelowFloor"

    with pytest.raises(InvalidInputError):
        replica.renew(Owner().credentials())
    with pytest.raises(AuthenticationError) as expired:
        replica.renew(owner.credentials(9, 8, hcp.Validity(NOW - DAY, NOW - DAY // 2)))
    assert expired.value.reason == "Expired"
    await replica.shutdown()
    with pytest.raises(ClosedError):
        replica.renew(owner.credentials(9, 8))


async def test_an_address_is_served_until_its_listener_is_shut_down() -> None:
    network, identity = hcp.MemoryNetwork(), hcp.Identity.generate()
    listener = await network.listen(identity)
    assert listener.status().value == hcp.ListenerStatus.Reachable()
    with pytest.raises(InUseError):
        await network.listen(identity)
    await listener.shutdown()
    await listener.shutdown()
    with pytest.raises(InUseError):
        hcp.Service(listener, Owner().credentials(), {})
    await (await hcp.Node.bind(identity, network)).shutdown()
