package hcp

import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.async
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import java.nio.file.Path
import java.time.Duration
import java.time.Instant
import kotlin.io.path.createDirectory
import kotlin.io.path.exists
import kotlin.io.path.readBytes
import kotlin.io.path.writeBytes
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

private val passphrase = Passphrase("correct horse battery staple")

/** Opens fast, and so protects little. */
private val cheap = Argon2Cost(8u * 1024u, 1u, 1u)

suspend fun profile(folder: Path, name: String): Profile =
    Profile.createFor(Identity.generate(), "$folder/$name", passphrase, name, cheap)

/** Waits for an event that [pick] takes. */
suspend fun <T : Any> Messenger.await(pick: (EventKind) -> T?): T {
    val events = events()
    while (true) pick(events.next().kind)?.let { return it }
}

suspend fun Messenger.awaitContact(address: OnionAddress, state: ContactState): Contact =
    await { kind -> (kind as? EventKind.Contact)?.contact?.takeIf { it.address == address && it.state == state } }

suspend fun Messenger.awaitMessage(text: String): Message =
    await { kind -> (kind as? EventKind.MessageReceived)?.message?.takeIf { it.text == text } }

/** Presence is not kept among the events, so whoever waits for it looks at the contact. */
suspend fun Messenger.awaitPresence(of: OnionAddress, presence: Presence) {
    val events = events(cursor())
    while (contact(of).presence != presence) events.next()
}

/** Both accept each other. */
suspend fun befriend(alice: Messenger, bob: Messenger) {
    alice.request(bob.address(), "Bob", "It is me")
    val request = bob.awaitContact(alice.address(), ContactState.PENDING)
    assertEquals("It is me", request.greeting)
    bob.accept(request.address)
    alice.awaitContact(bob.address(), ContactState.ACCEPTED)
    bob.awaitContact(alice.address(), ContactState.ACCEPTED)
}

class MessengerTest {
    private val network = Network.Memory(MemoryNetwork())

    /** Two people who are online and know nothing of each other. */
    private fun two(test: suspend CoroutineScope.(Messenger, Messenger, Path) -> Any?) = within {
        inTemporaryFolder { folder ->
            Messenger(profile(folder, "Alice")).use { alice ->
                Messenger(profile(folder, "Bob")).use { bob ->
                    alice.goOnline(network)
                    bob.goOnline(network)
                    assertTrue(alice.reachable())
                    test(alice, bob, folder)
                }
            }
        }
    }

    @Test
    fun `two people get acquainted and talk both ways`() = two { alice, bob, _ ->
        befriend(alice, bob)
        val id = alice.send(bob.address(), "hello")
        val received = bob.awaitMessage("hello")
        assertEquals(id, received.id)
        assertEquals(Direction.INCOMING, received.direction)
        assertTrue(Duration.between(received.time, Instant.now()) < Duration.ofMinutes(1))
        bob.send(alice.address(), "hello yourself")
        alice.awaitMessage("hello yourself")
        alice.await { (it as? EventKind.MessageState)?.takeIf { it.id == id && it.state == MessageState.Delivered } }
        assertEquals(MessageState.Delivered, alice.message(id).state)
        val history = alice.messages(bob.address(), null, 10u)
        assertEquals(listOf("hello", "hello yourself"), history.map { it.text })
        assertEquals(listOf("hello"), alice.messages(bob.address(), history.last().position, 10u).map { it.text })
        assertEquals("Bob", alice.contact(bob.address()).petname)
        assertEquals("Alice", bob.contacts().single().name)
    }

    @Test
    fun `a profile is backed up while it is open`() = two { alice, bob, folder ->
        befriend(alice, bob)
        alice.send(bob.address(), "kept")
        bob.awaitMessage("kept")
        bob.backUp("$folder/backup")
        assertFailsWith<HcpException.InvalidInput> { bob.backUp("$folder/backup") }
        bob.shutdown()
        Messenger(Profile.open("$folder/backup", passphrase)).use { restored ->
            assertEquals(listOf("kept"), restored.messages(alice.address(), null, 10u).map { it.text })
        }
    }

    @Test
    fun `presence and names reach contacts`() = two { alice, bob, _ ->
        befriend(alice, bob)
        bob.setAvailability(Availability.AWAY)
        alice.awaitPresence(bob.address(), Presence.AWAY)
        bob.setName("Robert")
        assertEquals("Robert", bob.name())
        bob.goOffline()
        alice.awaitPresence(bob.address(), Presence.OFFLINE)
        bob.goOnline(network)
        alice.connectNow(bob.address())
        alice.await { (it as? EventKind.Contact)?.contact?.takeIf { it.name == "Robert" } }
    }

    @Test
    fun `a file arrives whole`() = two { alice, bob, folder ->
        befriend(alice, bob)
        val file = folder.resolve("cat.jpg")
        val bytes = Random(1).nextBytes(300_000)
        file.writeBytes(bytes)
        val id = alice.offerFile(bob.address(), "$file")
        val offer = bob.await { (it as? EventKind.TransferOffered)?.transfer }
        assertEquals(id, offer.id)
        assertEquals("cat.jpg", offer.name)
        assertEquals(bytes.size.toULong(), offer.size)
        val downloads = folder.resolve("downloads").createDirectory()
        bob.acceptFile(offer.id, "$downloads")
        for (person in listOf(alice, bob)) {
            person.await { (it as? EventKind.TransferState)?.takeIf { it.state == TransferState.Done } }
        }
        assertContentEquals(bytes, downloads.resolve("cat.jpg").readBytes())
        assertEquals(TransferState.Done, bob.transfer(id).state)
        assertEquals(listOf(id), alice.transfers().map { it.id })
    }

    @Test
    fun `a file can be declined and cancelled`() = two { alice, bob, folder ->
        befriend(alice, bob)
        val file = folder.resolve("cat.jpg")
        file.writeBytes(ByteArray(1000))
        val declined = alice.offerFile(bob.address(), "$file")
        bob.await { (it as? EventKind.TransferOffered)?.transfer?.takeIf { it.id == declined } }
        bob.declineFile(declined)
        alice.await { (it as? EventKind.TransferState)?.takeIf { it.id == declined && it.state == TransferState.Declined } }
        val cancelled = alice.offerFile(bob.address(), "$file")
        bob.await { (it as? EventKind.TransferOffered)?.transfer?.takeIf { it.id == cancelled } }
        alice.cancelFile(cancelled)
        bob.await { (it as? EventKind.TransferState)?.takeIf { it.id == cancelled && it.state == TransferState.Cancelled } }
        assertFailsWith<HcpException.InvalidInput> { bob.acceptFile(cancelled, "$folder/nothing") }
        assertFalse(folder.resolve("nothing").exists())
        assertFailsWith<HcpException.Storage> { alice.offerFile(bob.address(), "$folder/missing") }
    }

    @Test
    fun `a queued message can be taken back`() = within {
        inTemporaryFolder { folder ->
            Messenger(profile(folder, "Alice")).use { alice ->
                val nobody = Identity.generate().address()
                alice.request(nobody, "", "")
                val id = alice.send(nobody, "never mind")
                assertEquals(MessageState.Queued, alice.message(id).state)
                alice.cancel(id)
                assertEquals(MessageState.Cancelled, alice.message(id).state)
                assertFailsWith<HcpException.Refused> { alice.cancel(id) }
                assertFailsWith<HcpException.InvalidInput> { alice.cancel("00000000000000000000000000000000") }
                assertFailsWith<HcpException.InvalidInput> { alice.cancel("no id") }
            }
        }
    }

    @Test
    fun `whoever is blocked is not heard`() = two { alice, bob, _ ->
        befriend(alice, bob)
        bob.block(alice.address())
        assertEquals(ContactState.BLOCKED, bob.contact(alice.address()).state)
        alice.awaitPresence(bob.address(), Presence.OFFLINE)
        alice.send(bob.address(), "are you there?")
        assertFailsWith<HcpException.InvalidInput> { bob.send(alice.address(), "no") }
        bob.unblock(alice.address())
        assertEquals(ContactState.ARCHIVED, bob.contact(alice.address()).state)
        assertEquals(emptyList(), bob.messages(alice.address(), null, 10u).map { it.text })
    }

    @Test
    fun `a contact request can be declined, and the list be kept`() = two { alice, bob, _ ->
        alice.draft(bob.address(), "Bobby")
        alice.rename(bob.address(), "Bob")
        assertEquals("Bob", alice.contacts().single().petname)
        alice.request(bob.address(), "Bob", "hello?")
        bob.awaitContact(alice.address(), ContactState.PENDING)
        bob.reject(alice.address())
        assertEquals(ContactState.DECLINED, bob.contact(alice.address()).state)
        alice.awaitContact(bob.address(), ContactState.REJECTED)
        alice.archive(bob.address())
        assertEquals(ContactState.ARCHIVED, alice.contact(bob.address()).state)
        assertFailsWith<HcpException.InvalidInput> { alice.request(alice.address(), "me", "") }
        assertFailsWith<HcpException.InvalidInput> { alice.contact(Identity.generate().address()) }
        assertFailsWith<HcpException.InvalidInput> { alice.send(bob.address(), "") }
    }

    @Test
    fun `events are read on where a cursor stands`() = two { alice, bob, _ ->
        val start = alice.cursor()
        befriend(alice, bob)
        alice.send(bob.address(), "one")
        alice.send(bob.address(), "two")
        fun written(event: Event) = (event.kind as? EventKind.MessageWritten)?.message?.text
        val first = alice.events(start).values().first { written(it) == "one" }
        assertEquals("two", written(alice.events(first.cursor).values().first { written(it) != null }))
        val last = alice.cursor()
        val events = alice.events(last)
        val waiting = async(start = CoroutineStart.UNDISPATCHED) { events.values().toList() }
        alice.shutdown()
        assertTrue(waiting.await().none { written(it) != null })
        assertFailsWith<HcpException.Closed> { events.next() }
    }

    @Test
    fun `waiting for an event can be cancelled`() = two { alice, _, _ ->
        val events = alice.events(alice.cursor())
        val cancellation = Cancellation()
        val waiting = async(start = CoroutineStart.UNDISPATCHED) { runCatching { events.next(cancellation) } }
        cancellation.cancel()
        assertTrue(waiting.await().exceptionOrNull() is HcpException.Cancelled)
        alice.draft(Identity.generate().address(), "somebody")
        assertTrue(events.next().kind is EventKind.Contact)
        assertFailsWith<HcpException.InvalidInput> { alice.events(1_000_000_000uL) }
    }

    @Test
    fun `a profile is opened once, by its passphrase`() = within {
        inTemporaryFolder { folder ->
            val home = "$folder/Alice"
            val address = Messenger(profile(folder, "Alice")).use { alice ->
                assertFailsWith<HcpException.InUse> { Profile.open(home, passphrase) }
                assertEquals(ListenerStatus.Stopped, alice.status().current())
                alice.address()
            }
            assertFailsWith<HcpException.Authentication> { Profile.open(home, Passphrase("wrong")) }
            assertFailsWith<HcpException.InvalidInput> { Profile.open("$folder/nobody", passphrase) }
            assertFailsWith<HcpException.InvalidInput> { profile(folder, "Alice") }
            val other = Passphrase("another")
            changePassphrase(home, passphrase, other, cheap)
            assertFailsWith<HcpException.Authentication> { Profile.open(home, passphrase) }
            val profile = Profile.open(home, other)
            assertEquals(address, profile.address())
            val messenger = Messenger(profile)
            assertFailsWith<HcpException.InvalidInput> { Messenger(profile) }
            messenger.shutdown()
            assertFailsWith<HcpException.Closed> { messenger.contacts() }
            assertFalse(messenger.reachable())
            Profile.open(home, other).close()
            Profile.create("$folder/new", passphrase, "New").close()
        }
    }
}
