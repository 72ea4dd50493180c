"""Two people on a memory network: requests, messages, files, blocks, and the stream of events."""

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from people import (
    CHEAP,
    PASSPHRASE,
    befriend,
    contact_is,
    happens,
    message_is,
    offered,
    person,
    received,
    transfer_is,
)

import hcp
from hcp.errors import AuthenticationError, ClosedError, InUseError, InvalidInputError, RefusedError

STRANGER = hcp.Identity.from_seed(b"\x07" * 32).address


@dataclass(frozen=True)
class People:
    """Alice and Bob, who can reach each other."""

    network: hcp.MemoryNetwork
    alice: hcp.Messenger
    bob: hcp.Messenger


@pytest_asyncio.fixture
async def people(tmp_path: Path) -> AsyncGenerator[People, None]:
    network = hcp.MemoryNetwork()
    async with person(tmp_path, "Alice", network) as alice, person(tmp_path, "Bob", network) as bob:
        yield People(network, alice, bob)


async def test_request_is_accepted_and_both_talk(people: People) -> None:
    alice, bob = people.alice, people.bob
    await alice.request(bob.address, "Bobby", "It is me, from the library")
    queued = await alice.send(bob.address, "waits until he accepts")
    await contact_is(bob, alice.address, hcp.ContactState.PENDING)
    request = await bob.contact(alice.address)
    assert (request.name, request.petname, request.greeting) == ("Alice", "", "It is me, from the library")
    assert (await alice.message(queued)).state == hcp.MessageState.QUEUED
    await bob.accept(alice.address)

    message = await received(bob, "waits until he accepts")
    assert (message.id, message.contact, message.direction) == (queued, alice.address, hcp.Direction.INCOMING)
    assert abs(message.time - datetime.now(UTC)) < timedelta(minutes=1)
    await message_is(alice, queued, hcp.MessageState.DELIVERED)

    answer = await bob.send(alice.address, "zurück: ünïcode ✓\nsecond line")
    assert (await received(alice, "zurück: ünïcode ✓\nsecond line")).id == answer
    await message_is(bob, answer, hcp.MessageState.DELIVERED)

    history = await alice.messages(bob.address)
    assert [each.id for each in history] == [queued, answer]
    assert history[0].state == hcp.MessageState.DELIVERED
    assert history[0].failure is None
    assert await alice.messages(bob.address, before=history[1].position) == history[:1]
    assert await alice.messages(bob.address, limit=1) == history[1:]
    (contact,) = await alice.contacts()
    assert (contact.name, contact.petname, contact.state) == ("Bob", "Bobby", hcp.ContactState.ACCEPTED)


async def test_presence_shows_and_goes(people: People) -> None:
    alice, bob = people.alice, people.bob
    await befriend(alice, bob)

    async def presence_is(presence: hcp.Presence) -> None:
        def look(kind: hcp.EventKind) -> bool | None:
            match kind:
                case hcp.EventKind.Presence(contact, now) if (contact, now) == (bob.address, presence):
                    return True
                case _:
                    return None

        # Events of presence are not kept: one that went by before this looked shows in the contact only.
        looking = asyncio.create_task(happens(alice, look))
        while (await alice.contact(bob.address)).presence != presence:
            await asyncio.wait([looking], timeout=0.05)
        looking.cancel()

    await presence_is(hcp.Presence.AVAILABLE)
    await bob.set_availability(hcp.Availability.AWAY)
    await presence_is(hcp.Presence.AWAY)
    await bob.go_offline()
    await presence_is(hcp.Presence.OFFLINE)
    assert bob.status().value == hcp.ListenerStatus.Stopped()


async def test_profile_is_backed_up_while_it_is_open(people: People, tmp_path: Path) -> None:
    alice, bob = people.alice, people.bob
    await befriend(alice, bob)
    await alice.send(bob.address, "kept")
    await received(bob, "kept")
    await bob.back_up(tmp_path / "backup")
    with pytest.raises(InvalidInputError) as caught:
        await bob.back_up(tmp_path / "backup")
    assert caught.value.reason == "AlreadyExists"
    await bob.shutdown()
    async with hcp.Messenger(await hcp.Profile.open(tmp_path / "backup", PASSPHRASE)) as restored:
        assert [message.text for message in await restored.messages(alice.address)] == ["kept"]


async def test_queued_message_can_be_taken_back(people: People) -> None:
    alice, bob = people.alice, people.bob
    await befriend(alice, bob)
    await bob.go_offline()
    # A message that was on its way when the session ended cannot be taken back; one that waits can.
    await alice.go_offline()
    message = await alice.send(bob.address, "never mind")
    await alice.cancel(message)
    await message_is(alice, message, hcp.MessageState.CANCELLED)
    with pytest.raises(RefusedError) as caught:
        await alice.cancel(message)
    assert caught.value.reason == "TooLate"


async def test_message_waits_for_somebody_who_is_offline(people: People) -> None:
    alice, bob = people.alice, people.bob
    await befriend(alice, bob)
    await bob.go_offline()
    message = await alice.send(bob.address, "later")
    await bob.go_online(people.network)
    assert await bob.reachable()
    await alice.connect_now(bob.address)
    assert (await received(bob, "later")).id == message


async def test_rejected_request_fails_what_waits(people: People) -> None:
    alice, bob = people.alice, people.bob
    await alice.request(bob.address, "Bob", "")
    message = await alice.send(bob.address, "hello?")
    await contact_is(bob, alice.address, hcp.ContactState.PENDING)
    await bob.reject(alice.address)
    assert (await bob.contact(alice.address)).state == hcp.ContactState.DECLINED
    await alice.connect_now(bob.address)
    await contact_is(alice, bob.address, hcp.ContactState.REJECTED)
    await message_is(alice, message, hcp.MessageState.FAILED)
    assert (await alice.message(message)).failure == hcp.FailureReason.REJECTED


async def test_blocked_people_are_not_heard(people: People) -> None:
    alice, bob = people.alice, people.bob
    await befriend(alice, bob)
    await bob.block(alice.address)
    assert (await bob.contact(alice.address)).state == hcp.ContactState.BLOCKED
    with pytest.raises(InvalidInputError) as caught:
        await bob.send(alice.address, "no")
    assert caught.value.reason == "State"
    await alice.send(bob.address, "are you there?")
    await alice.connect_now(bob.address)
    await bob.unblock(alice.address)
    assert (await bob.contact(alice.address)).state == hcp.ContactState.ARCHIVED
    assert not [each for each in await bob.messages(alice.address) if each.text == "are you there?"]


async def test_file_goes_from_one_to_the_other(people: People, tmp_path: Path) -> None:
    alice, bob = people.alice, people.bob
    await befriend(alice, bob)
    content = os.urandom(3_000_000)
    (tmp_path / "picture.png").write_bytes(content)
    id = await alice.offer_file(bob.address, tmp_path / "picture.png")
    offer = await offered(bob, "picture.png")
    assert (offer.id, offer.size, offer.done) == (id, len(content), 0)
    assert (offer.state, offer.direction, offer.path) == (hcp.TransferState.OFFERED, hcp.Direction.INCOMING, None)
    (tmp_path / "downloads").mkdir()
    await bob.accept_file(id, tmp_path / "downloads")
    await transfer_is(bob, id, hcp.TransferState.DONE)
    await transfer_is(alice, id, hcp.TransferState.DONE)
    done = await bob.transfer(id)
    saved = tmp_path / "downloads" / "picture.png"
    assert done.path == saved
    assert saved.read_bytes() == content
    assert (done.done, done.failure) == (len(content), None)
    assert [each.id for each in await alice.transfers()] == [id]


async def test_files_are_declined_and_cancelled(people: People, tmp_path: Path) -> None:
    alice, bob = people.alice, people.bob
    await befriend(alice, bob)
    (tmp_path / "one").write_bytes(b"1")
    declined = await alice.offer_file(bob.address, tmp_path / "one")
    with pytest.raises(RefusedError) as caught:
        await alice.offer_file(bob.address, tmp_path / "one")
    assert caught.value.reason == "Busy"
    await offered(bob, "one")
    await bob.decline_file(declined)
    await transfer_is(alice, declined, hcp.TransferState.DECLINED)
    cancelled = await alice.offer_file(bob.address, tmp_path / "one")
    await alice.cancel_file(cancelled)
    await transfer_is(bob, cancelled, hcp.TransferState.CANCELLED)
    with pytest.raises(InvalidInputError):
        await bob.accept_file(cancelled, tmp_path / "two")
    with pytest.raises(hcp.errors.StorageError):
        await alice.offer_file(bob.address, tmp_path / "missing")


async def test_profile_keeps_everything_under_its_passphrase(tmp_path: Path) -> None:
    async with person(tmp_path, "Alice") as alice:
        address = alice.address
        await alice.set_name("Alice in Wonderland")
        await alice.draft(STRANGER, "the cat")
        await alice.rename(STRANGER, "the Cheshire cat")
        cursor = await alice.cursor()
        with pytest.raises(InUseError):
            await hcp.Profile.open(tmp_path / "Alice", PASSPHRASE)
    with pytest.raises(ClosedError):
        await alice.contacts()
    await hcp.Profile.change_passphrase(tmp_path / "Alice", PASSPHRASE, hcp.Passphrase("other"), CHEAP)
    with pytest.raises(AuthenticationError) as caught:
        await hcp.Profile.open(tmp_path / "Alice", PASSPHRASE)
    assert caught.value.reason == "WrongPassphrase"
    profile = await hcp.Profile.open(tmp_path / "Alice", hcp.Passphrase("other"))
    assert profile.address == address
    async with hcp.Messenger(profile) as alice:
        assert await alice.name() == "Alice in Wonderland"
        (cat,) = await alice.contacts()
        assert (cat.petname, cat.state, cat.presence) == (
            "the Cheshire cat",
            hcp.ContactState.DRAFT,
            hcp.Presence.OFFLINE,
        )
        assert await alice.cursor() == cursor
        with pytest.raises(InUseError):
            hcp.Messenger(profile)
    for file in (tmp_path / "Alice").iterdir():
        assert b"Cheshire" not in file.read_bytes()


async def test_profile_is_made_once(tmp_path: Path) -> None:
    profile = await hcp.Profile.create(tmp_path / "p", PASSPHRASE, "P")
    with pytest.raises(InvalidInputError) as caught:
        await hcp.Profile.create(tmp_path / "p", PASSPHRASE, "P")
    assert caught.value.reason == "AlreadyExists"
    with pytest.raises(InvalidInputError) as missing:
        await hcp.Profile.open(tmp_path / "q", PASSPHRASE)
    assert missing.value.reason == "NotFound"
    del profile
    await hcp.Profile.open(tmp_path / "p", PASSPHRASE)


async def test_events_go_on_behind_a_cursor(people: People) -> None:
    alice, bob = people.alice, people.bob
    await befriend(alice, bob)
    texts = [str(number) for number in range(20)]
    for text in texts[:10]:
        await alice.send(bob.address, text)
    await received(bob, "9")
    seen: list[str] = []
    cursor = hcp.Cursor.START
    async for event in bob.events(cursor):
        match event.kind:
            case hcp.EventKind.MessageReceived(message):
                seen.append(message.text)
                cursor = event.cursor
                if len(seen) == 5:
                    break
            case _:
                pass
    for text in texts[10:]:
        await alice.send(bob.address, text)
    async for event in bob.events(hcp.Cursor(cursor.value)):
        match event.kind:
            case hcp.EventKind.MessageReceived(message):
                seen.append(message.text)
                if len(seen) == 20:
                    break
            case _:
                pass
    assert seen == texts
    with pytest.raises(InvalidInputError) as caught:
        await anext(bob.events(hcp.Cursor(10**9)))
    assert caught.value.reason == "UnknownCursor"


async def test_cancelled_reader_loses_no_event(people: People) -> None:
    alice, bob = people.alice, people.bob
    await befriend(alice, bob)
    events = bob.events(await bob.cursor())
    texts = [str(number) for number in range(30)]
    seen: list[str] = []

    async def read() -> None:
        async for event in events:
            match event.kind:
                case hcp.EventKind.MessageReceived(message):
                    seen.append(message.text)
                case _:
                    pass

    for number, text in enumerate(texts):
        reading = asyncio.create_task(read())
        await alice.send(bob.address, text)
        for _ in range(number % 7):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
    reading = asyncio.create_task(read())
    while len(seen) < len(texts):
        await asyncio.sleep(0.001)
    reading.cancel()
    assert seen == texts


async def test_events_end_with_the_messenger(tmp_path: Path) -> None:
    async with person(tmp_path, "Alice") as alice:
        events = alice.events(hcp.Cursor.START)
        reading = asyncio.create_task(anext(events, None))
        await asyncio.sleep(0)
        await alice.shutdown()
        assert await reading is None
        assert [event async for event in events] == []


async def test_bad_input_is_refused(tmp_path: Path) -> None:
    async with person(tmp_path, "Alice") as alice:
        with pytest.raises(InvalidInputError) as caught:
            await alice.send(STRANGER, "hello")
        assert caught.value.reason == "UnknownContact"
        with pytest.raises(InvalidInputError) as own:
            await alice.request(alice.address, "me", "")
        assert own.value.reason == "Own"
        await alice.request(STRANGER, "", "")
        with pytest.raises(InvalidInputError) as long:
            await alice.send(STRANGER, "x" * (hcp.MAX_TEXT + 1))
        assert long.value.reason == "TooLong"
        with pytest.raises(InvalidInputError) as empty:
            await alice.send(STRANGER, " \n")
        assert empty.value.reason == "Empty"
        with pytest.raises(InvalidInputError):
            await alice.set_name("x" * (hcp.MAX_NAME + 1))
        with pytest.raises(InvalidInputError):
            hcp.MessageId("not an id")
        assert str(hcp.TransferId("ab" * 16)) == "ab" * 16
        for secret in (alice, *(await alice.contacts())):
            assert str(STRANGER)[:10] not in repr(secret)
