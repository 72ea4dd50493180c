"""People for the tests: messengers whose profiles open quickly, and what one waits for with them."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import hcp

CHEAP = hcp.Argon2Cost(hcp.Argon2Cost.MEMORY_KIB.start, 1, 1)
T = TypeVar("T")
PASSPHRASE = hcp.Passphrase("correct horse battery staple")


@asynccontextmanager
async def person(folder: Path, name: str, network: hcp.Network | None = None) -> AsyncGenerator[hcp.Messenger, None]:
    """A messenger with a profile of its own, online when there is a network."""
    profile = await hcp.Profile.create_for(hcp.Identity.generate(), folder / name, PASSPHRASE, name, CHEAP)
    async with hcp.Messenger(profile) as messenger:
        if network is not None:
            await messenger.go_online(network)
        yield messenger


async def happens(messenger: hcp.Messenger, what: Callable[[hcp.EventKind], T | None]) -> T:
    """Waits for an event, from the first one on, of which `what` makes something."""
    async for event in messenger.events(hcp.Cursor.START):
        found = what(event.kind)
        if found is not None:
            return found
    raise AssertionError("the messenger was shut down before")


async def contact_is(messenger: hcp.Messenger, address: hcp.OnionAddress, state: hcp.ContactState) -> None:
    """Waits until a contact is in a state."""

    def look(kind: hcp.EventKind) -> bool | None:
        match kind:
            case hcp.EventKind.Contact(contact) if (contact.address, contact.state) == (address, state):
                return True
            case _:
                return None

    await happens(messenger, look)


async def received(messenger: hcp.Messenger, text: str) -> hcp.Message:
    """Waits for a message with this text."""

    def look(kind: hcp.EventKind) -> hcp.Message | None:
        match kind:
            case hcp.EventKind.MessageReceived(message) if message.text == text:
                return message
            case _:
                return None

    return await happens(messenger, look)


async def message_is(messenger: hcp.Messenger, id: hcp.MessageId, state: hcp.MessageState) -> None:
    """Waits until a message is in a state."""

    def look(kind: hcp.EventKind) -> bool | None:
        match kind:
            case hcp.EventKind.MessageState(found, _, reached, _) if (found, reached) == (id, state):
                return True
            case _:
                return None

    await happens(messenger, look)


async def offered(messenger: hcp.Messenger, name: str) -> hcp.Transfer:
    """Waits for a file with this name."""

    def look(kind: hcp.EventKind) -> hcp.Transfer | None:
        match kind:
            case hcp.EventKind.TransferOffered(transfer) if transfer.name == name:
                return transfer
            case _:
                return None

    return await happens(messenger, look)


async def transfer_is(messenger: hcp.Messenger, id: hcp.TransferId, state: hcp.TransferState) -> None:
    """Waits until a transfer is in a state."""

    def look(kind: hcp.EventKind) -> bool | None:
        match kind:
            case hcp.EventKind.TransferState(found, _, reached, _) if (found, reached) == (id, state):
                return True
            case _:
                return None

    await happens(messenger, look)


async def befriend(alice: hcp.Messenger, bob: hcp.Messenger) -> None:
    """Alice asks, Bob accepts."""
    await alice.request(bob.address, "Bob", "It is me")
    await contact_is(bob, alice.address, hcp.ContactState.PENDING)
    await bob.accept(alice.address)
    await contact_is(alice, bob.address, hcp.ContactState.ACCEPTED)
