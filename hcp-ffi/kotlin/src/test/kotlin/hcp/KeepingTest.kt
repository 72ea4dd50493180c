package hcp

import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.async
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.filterIsInstance
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.toList
import java.time.Duration
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertIs
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue

/** Sessions that are shared, drained, kept, prioritised; events and statistics of nodes. */
class KeepingTest {
    private val network = Network.Memory(MemoryNetwork())
    private val soon = Backoff(minBackoff(), Duration.ofMillis(50))

    private suspend fun assertEchoes(session: Session) {
        session.open(ECHO).use { stream ->
            stream.send("here".encodeToByteArray())
            assertEquals("here", text(stream.recv()))
        }
    }

    private suspend fun until(condition: () -> Boolean) {
        while (!condition()) delay(1)
    }

    @Test
    fun `both sides share the session that one of them dialled`() = within {
        val nodes = echoPair(network)
        val session = nodes.client.connect(nodes.server.address())
        assertEchoes(session)
        val back = nodes.server.connect(nodes.client.address())
        assertEquals(DialledBy.US to DialledBy.PEER, session.dialledBy() to back.dialledBy())
        val (near, far) = nodes.client.stats() to nodes.server.stats()
        assertEquals(listOf<ULong>(1u, 0u, 1u), listOf(near.sessionsDialled, near.sessionsAccepted, near.sessionsOpen))
        assertEquals(listOf<ULong>(0u, 1u, 1u), listOf(far.sessionsDialled, far.sessionsAccepted, far.sessionsOpen))
    }

    @Test
    fun `a throw-away identity is somebody else`() = within {
        val peers = CompletableDeferred<Peer>()
        val server = NodeBuilder(Identity.generate(), network)
            .protocol("who/1", Access.IDENTIFIED) { _, session -> peers.complete(session.peer()) }
            .bind()
        val client = NodeBuilder(Identity.generate(), network).bind()
        val somebody = Identity.generate()
        val stream = client.connectAs(server.address(), somebody).open("who/1")
        assertEquals(somebody.address(), peers.await().address())
        stream.close()
    }

    @Test
    fun `draining lets open streams end`() = within {
        val nodes = echoPair(network)
        val session = nodes.client.connect(nodes.server.address())
        val stream = session.open(ECHO)
        val draining = async(start = CoroutineStart.UNDISPATCHED) { session.drain(Duration.ofSeconds(20)) }
        stream.send("still".encodeToByteArray())
        assertEquals("still", text(stream.recv()))
        stream.finish()
        assertNull(stream.recv())
        assertTrue(draining.await())
        val other = nodes.client.connect(nodes.server.address())
        val kept = other.open(ECHO)
        assertFalse(other.drain(Duration.ofMillis(50)))
        assertEquals(ErrorKind.CLOSED, other.closed().kind)
        kept.close()
    }

    @Test
    fun `bulk travels on lanes`() = within {
        val priorities = CompletableDeferred<Priority>()
        val server = NodeBuilder(Identity.generate(), network)
            .protocol("count/1", Access.ANYONE) { stream, _ ->
                priorities.complete(stream.priority())
                val total = stream.messages().toList().sumOf { it.size }
                stream.send("$total".encodeToByteArray())
                stream.finish()
            }
            .bind()
        val client = NodeBuilder(Identity.generate(), network).lanes(1u).bind()
        val session = client.connect(server.address())
        val stream = session.openWith("count/1", Priority.BULK)
        until { session.stats().lanes == 1uL }
        repeat(20) { stream.send(ByteArray(100_000)) }
        stream.finish()
        assertEquals("2000000", text(stream.recv()))
        assertEquals(Priority.BULK to Priority.BULK, priorities.await() to stream.priority())
        val stats = session.stats()
        assertTrue(stats.bytesSent > 2_000_000u && stats.paddingSent > 0u && stats.framesSent > 20u, "$stats")
        assertEquals(0uL, stats.framesResent)
        assertEquals(1uL, server.stats().lanesJoined)
        val tooMany = NodeBuilder(Identity.generate(), network).lanes(maxLanes() + 1u)
        assertFailsWith<HcpException.InvalidInput> { tooMany.bind() }
    }

    @Test
    fun `events tell what happens`() = within {
        val nodes = echoPair(network)
        val events = nodes.client.events()
        val nobody = Identity.generate().address()
        assertFailsWith<HcpException.Unreachable> { nodes.client.connect(nobody) }
        val failed = assertIs<NodeEvent.DialFailed>(events.next())
        assertEquals(nobody to ErrorKind.UNREACHABLE, failed.address to failed.kind)
        val session = nodes.client.connect(nodes.server.address())
        val began = assertIs<NodeEvent.SessionBegan>(events.next())
        assertEquals(nodes.server.address() to DialledBy.US, began.peer.address() to began.dialledBy)
        // A cancelled reader loses nothing.
        val cancellation = Cancellation()
        val waiting = async(start = CoroutineStart.UNDISPATCHED) { runCatching { events.next(cancellation) } }
        cancellation.cancel()
        assertIs<HcpException.Cancelled>(waiting.await().exceptionOrNull())
        session.shutdown()
        val ended = events.values().filterIsInstance<NodeEvent.SessionEnded>().first()
        assertEquals(ErrorKind.CLOSED, ended.error.kind)
        nodes.client.shutdown()
        assertEquals(emptyList(), events.values().toList())
        assertFailsWith<HcpException.Closed> { nodes.client.events() }
        assertFailsWith<HcpException.Closed> { nodes.client.stats() }
    }

    @Test
    fun `a kept session comes back until it is stopped`() = within {
        val identity = Identity.generate()
        val client = NodeBuilder(Identity.generate(), network).bind()
        val kept = client.maintain(identity.address(), soon)
        assertNull(kept.current())
        repeat(2) {
            NodeBuilder(identity, network).protocol(ECHO, Access.ANYONE, serve = ::echo).bind().use {
                assertEchoes(kept.session())
                assertNotNull(kept.current())
            }
            until { kept.current() == null }
        }
        val waiting = async(start = CoroutineStart.UNDISPATCHED) { runCatching { kept.session() } }
        kept.stop()
        assertIs<HcpException.Closed>(waiting.await().exceptionOrNull())
        assertNull(kept.current())
    }

    @Test
    fun `a node that is shut down keeps no session`() = within {
        val nodes = echoPair(network)
        val kept = nodes.client.maintain(nodes.server.address(), soon)
        assertEchoes(kept.session())
        nodes.client.shutdown()
        assertFailsWith<HcpException.Closed> { kept.session() }
        assertFailsWith<HcpException.Closed> { nodes.client.maintain(nodes.server.address()) }
        until { nodes.server.stats().sessionsOpen == 0uL }
        val accepted = nodes.server.stats().sessionsAccepted
        delay(200)
        assertEquals(accepted, nodes.server.stats().sessionsAccepted)
    }

    @Test
    fun `a session is kept as whoever is to dial`() = within {
        val peers = mutableListOf<OnionAddress?>()
        val server = NodeBuilder(Identity.generate(), network)
            .protocol("who/1", Access.ANYONE) { stream, session ->
                peers.add(session.peer().address())
                stream.finish()
            }
            .bind()
        val client = NodeBuilder(Identity.generate(), network).bind()
        val somebody = Identity.generate()
        for (me in listOf(DialAs.Node, DialAs.Anonymous, DialAs.Identity(somebody))) {
            val kept = client.maintainAs(server.address(), me, soon)
            val first = kept.session()
            assertNull(first.open("who/1").recv())
            assertNull(first.replica())
            first.shutdown()
            assertNull(kept.after(first).open("who/1").recv())
            kept.stop()
            assertFailsWith<HcpException.Closed> { kept.after(first) }
        }
        val me = client.address()
        assertEquals(listOf(me, me, null, null, somebody.address(), somebody.address()), peers)
    }

    @Test
    fun `an impossible backoff is refused`() {
        assertFailsWith<HcpException.InvalidInput> { Backoff(Duration.ZERO, Duration.ofSeconds(1)) }
        assertFailsWith<HcpException.InvalidInput> { Backoff(Duration.ofSeconds(1), maxBackoff().plusSeconds(1)) }
        assertEquals(minBackoff() to Duration.ofMillis(50), soon.first() to soon.longest())
        assertEquals(Backoff(soon.first(), soon.longest()), soon)
    }
}
