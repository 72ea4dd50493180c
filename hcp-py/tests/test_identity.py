"""Addresses, keys, key files, C tor's directories."""

import asyncio
from pathlib import Path

import pytest

import hcp
from hcp.errors import AuthenticationError, InvalidInputError

ADDRESS = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion"
CHEAP = hcp.Argon2Cost(hcp.Argon2Cost.MEMORY_KIB.start, 1, 1)


def test_address_round_trips() -> None:
    address = hcp.OnionAddress(ADDRESS)
    assert str(address) == ADDRESS
    assert address == hcp.OnionAddress(ADDRESS.upper()) == hcp.OnionAddress.from_public_key(address.public_key)
    assert {address: 1}[hcp.OnionAddress(ADDRESS)] == 1
    assert address != ADDRESS
    assert sorted([address, address]) == [address, address]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Length"),
        ("a" * 1_000_000, "Length"),
        (ADDRESS.replace("duck", "du1k"), "Alphabet"),
        (ADDRESS.replace("duck", "dukc"), "Checksum"),
        (f" {ADDRESS}", "Length"),
    ],
)
def test_bad_address_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        hcp.OnionAddress(text)
    assert caught.value.reason == reason
    assert caught.value.kind is hcp.ErrorKind.INVALID_INPUT
    assert isinstance(caught.value, ValueError)


def test_secrets_are_not_printed() -> None:
    identity = hcp.Identity.from_seed(b"\x01" * 32)
    protection = hcp.Protection.passphrase(hcp.Passphrase("correct horse"))
    for secret in (identity, identity.address, hcp.LogKey.generate(), hcp.Passphrase("correct horse"), protection):
        assert "redacted" in repr(secret)
        assert "horse" not in repr(secret)
        assert str(identity.address)[:10] not in repr(secret)


def test_signature_is_verified() -> None:
    identity = hcp.Identity.generate()
    signature = identity.sign(b"HCP/1 example\0hello")
    assert len(signature) == 64
    identity.address.verify(b"HCP/1 example\0hello", signature)
    with pytest.raises(AuthenticationError):
        identity.address.verify(b"HCP/1 example\0hullo", signature)
    with pytest.raises(InvalidInputError, match="64 bytes, not 3"):
        identity.address.verify(b"", b"abc")


def test_identity_of_a_seed_is_that_of_rfc_8032() -> None:
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    assert hcp.Identity.from_seed(seed).address.public_key == public
    with pytest.raises(InvalidInputError, match="32 bytes, not 31"):
        hcp.Identity.from_seed(seed[1:])


def test_log_key_signs() -> None:
    key = hcp.LogKey.from_seed(b"\x03" * 32)
    hcp.LogKey.verify(key.public_key, b"entry", key.sign(b"entry"))
    with pytest.raises(AuthenticationError):
        hcp.LogKey.verify(key.public_key, b"other", key.sign(b"entry"))


def test_empty_passphrase_is_refused() -> None:
    with pytest.raises(InvalidInputError) as caught:
        hcp.Passphrase("")
    assert caught.value.reason == "EmptyPassphrase"


def test_cost_has_bounds() -> None:
    with pytest.raises(InvalidInputError):
        hcp.Argon2Cost(hcp.Argon2Cost.MEMORY_KIB.stop, 1, 1)
    assert hcp.Argon2Cost(hcp.Argon2Cost.MEMORY_KIB.stop - 1, 1, 1) != CHEAP


async def test_key_file_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    identity = hcp.Identity.generate()
    file = hcp.KeyFile(tmp_path / "identity.key").cost(CHEAP)
    protection = hcp.Protection.passphrase(hcp.Passphrase("correct horse"))
    await file.save(identity, protection)
    assert (tmp_path / "identity.key").stat().st_mode & 0o777 == 0o600
    loaded = await file.load(hcp.Identity, protection)
    assert loaded.address == identity.address

    with pytest.raises(AuthenticationError) as wrong:
        await file.load(hcp.Identity, hcp.Protection.passphrase(hcp.Passphrase("battery")))
    assert wrong.value.reason == "WrongPassphrase"
    with pytest.raises(AuthenticationError) as purpose:
        await file.load(hcp.LogKey, protection)
    assert purpose.value.reason == "WrongPurpose"
    with pytest.raises(InvalidInputError) as there:
        await file.save(identity, protection)
    assert there.value.reason == "AlreadyExists"


async def test_plain_file_holds_a_log_key(tmp_path: Path) -> None:
    key = hcp.LogKey.generate()
    file = hcp.KeyFile(tmp_path / "log.key")
    await file.save(key, hcp.Protection.plain())
    assert (await file.load(hcp.LogKey, hcp.Protection.plain())).public_key == key.public_key
    with pytest.raises(TypeError):
        await file.load(str, hcp.Protection.plain())  # type: ignore[type-var]  # pyright: ignore


async def test_storage_error_tells_its_cause(tmp_path: Path) -> None:
    with pytest.raises(hcp.errors.StorageError) as caught:
        await hcp.KeyFile(tmp_path / "missing" / "key").save(hcp.LogKey.generate(), hcp.Protection.plain())
    assert any("No such file" in note for note in caught.value.__notes__)


async def test_sealing_does_not_block_the_loop(tmp_path: Path) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    dear = hcp.KeyFile(tmp_path / "key").cost(hcp.Argon2Cost(64 * 1024, 3, 1))
    await dear.save(hcp.Identity.generate(), hcp.Protection.passphrase(hcp.Passphrase("x")))
    turning.cancel()
    # On a loop that is blocked it turns twice: before and after.
    assert turns > 100


async def test_c_tor_directory_round_trips(tmp_path: Path) -> None:
    identity = hcp.Identity.generate()
    await hcp.ctor.export(identity, tmp_path / "service")
    assert (tmp_path / "service" / "hostname").read_text().strip() == str(identity.address)
    assert (await hcp.ctor.import_(tmp_path / "service")).address == identity.address
    secret = (tmp_path / "service" / "hs_ed25519_secret_key").read_bytes()
    assert hcp.ctor.decode_secret_key(secret).expanded_secret_key() == identity.expanded_secret_key()
    with pytest.raises(InvalidInputError):
        hcp.ctor.decode_secret_key(secret[:-1])
    with pytest.raises(InvalidInputError):
        await hcp.ctor.import_(tmp_path)
