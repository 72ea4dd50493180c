package hcp

import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import java.time.Duration
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

class NodeTest {
    private val network = Network.Memory(MemoryNetwork())

    @Test
    fun `messages go both ways until both sides end`() = within {
        val nodes = echoPair(network)
        assertTrue(nodes.server.reachable())
        assertEquals(ListenerStatus.Reachable, nodes.server.status().values().first())
        nodes.client.connect(nodes.server.address()).use { session ->
            assertEquals(nodes.server.address(), session.peer().address())
            val stream = session.open(ECHO)
            stream.send("one".encodeToByteArray())
            stream.sender().send("two".encodeToByteArray())
            stream.finish()
            assertEquals(listOf("one", "two"), stream.messages().toList().map(::text))
            assertNull(stream.recv())
            session.shutdown()
            assertEquals(ErrorKind.CLOSED, session.closed().kind)
        }
    }

    @Test
    fun `the longest message passes and a longer one is refused`() = within {
        val nodes = echoPair(network)
        val stream = nodes.client.connect(nodes.server.address()).open(ECHO)
        val longest = ByteArray(maxMessage().toInt()) { it.toByte() }
        stream.send(longest)
        assertContentEquals(longest, stream.recv())
        assertFailsWith<HcpException.InvalidInput> { stream.send(ByteArray(longest.size + 1)) }
        stream.send(ByteArray(0))
        assertContentEquals(ByteArray(0), stream.recv())
    }

    @Test
    fun `a handler sees who dialled, or that nobody says so`() = within {
        val peers = CompletableDeferred<Peer>()
        val anonymous = CompletableDeferred<Peer>()
        val server = NodeBuilder(Identity.generate(), network)
            .protocol("known/1", Access.IDENTIFIED) { _, session -> peers.complete(session.peer()) }
            .protocol("open/1", Access.ANYONE) { _, session -> anonymous.complete(session.peer()) }
            .bind()
        val client = NodeBuilder(Identity.generate(), network).bind()
        val known = client.connect(server.address()).open("known/1")
        assertEquals(client.address(), peers.await().address())
        known.close()
        val session = client.connectAnonymously(server.address())
        val stream = session.open("open/1")
        assertEquals(Peer.Anonymous, anonymous.await())
        stream.close()
        assertFailsWith<HcpException.Refused> { session.open("known/1").recv() }
    }

    @Test
    fun `errors are told apart by kind`() = within {
        val nodes = echoPair(network)
        val session = nodes.client.connect(nodes.server.address())
        assertFailsWith<HcpException.Refused> { session.open("nobody/serves/this").recv() }
        assertFailsWith<HcpException.InvalidInput> { session.open("") }
        assertFailsWith<HcpException.Unreachable> { nodes.client.connect(Identity.generate().address()) }
        val identity = Identity.generate()
        val first = NodeBuilder(identity, network).bind()
        assertFailsWith<HcpException.InUse> { NodeBuilder(identity, network).bind() }
        first.shutdown()
        val twice = NodeBuilder(identity, network).protocol("a", Access.ANYONE, serve = ::echo)
        assertFailsWith<HcpException.InvalidInput> { twice.protocol("a", Access.ANYONE, serve = ::echo).bind() }
        assertFailsWith<HcpException.InvalidInput> { twice.bind() }
        val silent = NodeBuilder(identity, network).keepalive(Duration.ofSeconds(2), Duration.ofSeconds(1))
        assertFailsWith<HcpException.InvalidInput> { silent.bind() }
    }

    @Test
    fun `a handler that throws resets its stream and nothing else`() = within {
        val failures = mutableListOf<Throwable>()
        val raw = object : StreamHandler {
            override suspend fun serve(stream: Stream, session: Session) = error("not an HcpException")
        }
        val server = NodeBuilder(Identity.generate(), network)
            .protocol("raw/1", Access.ANYONE, raw)
            .protocol("exception/1", Access.ANYONE, failures::add) { stream, _ ->
                // Held on to, as a garbage collector would.
                leaked.add(stream)
                throw IllegalStateException("planned")
            }
            .protocol("error/1", Access.ANYONE, failures::add) { _, _ -> throw AssertionError("planned") }
            .protocol("hcp/1", Access.ANYONE, failures::add) { stream, _ -> stream.send(ByteArray(1 shl 20)) }
            .protocol(ECHO, Access.ANYONE, serve = ::echo)
            .bind()
        val session = NodeBuilder(Identity.generate(), network).bind().connect(server.address())
        for (protocol in listOf("raw/1", "exception/1", "error/1", "hcp/1")) {
            assertFailsWith<HcpException.Closed>(protocol) { session.open(protocol).recv() }
        }
        assertEquals(
            listOf(IllegalStateException::class, AssertionError::class, HcpException.InvalidInput::class),
            failures.map { it::class },
        )
        assertFailsWith<HcpException.Closed> { leaked.single().recv() }
        val stream = session.open(ECHO)
        stream.send("still here".encodeToByteArray())
        assertEquals("still here", text(stream.recv()))
    }

    private val leaked = mutableListOf<Stream>()

    @Test
    fun `a handler is cancelled with its session`() = within {
        val started = CompletableDeferred<Unit>()
        val cancelled = CompletableDeferred<Unit>()
        val server = NodeBuilder(Identity.generate(), network)
            .protocol("wait/1", Access.ANYONE) { _, _ ->
                started.complete(Unit)
                try {
                    awaitCancellation()
                } finally {
                    cancelled.complete(Unit)
                }
            }
            .bind()
        val session = NodeBuilder(Identity.generate(), network).bind().connect(server.address())
        val stream = session.open("wait/1")
        started.await()
        session.shutdown()
        cancelled.await()
        stream.close()
    }

    @Test
    fun `cancelling a coroutine drops the future in Rust`() = within {
        val nodes = echoPair(network)
        val stream = nodes.client.connect(nodes.server.address()).open(ECHO)
        // Calls to recv take turns: only when the first is gone does the second get the message.
        val first = launch(start = CoroutineStart.UNDISPATCHED) { stream.recv() }
        first.cancelAndJoin()
        stream.send("for the second".encodeToByteArray())
        assertEquals("for the second", text(stream.recv()))
    }

    @Test
    fun `a cancellation ends what it was given to and loses no message`() = within {
        val nodes = echoPair(network)
        val stream = nodes.client.connect(nodes.server.address()).open(ECHO)
        val cancellation = Cancellation()
        val first = async(start = CoroutineStart.UNDISPATCHED) { runCatching { stream.recv(cancellation) } }
        cancellation.cancel()
        assertTrue(cancellation.isCancelled())
        assertTrue(first.await().exceptionOrNull() is HcpException.Cancelled)
        stream.send("kept".encodeToByteArray())
        assertFailsWith<HcpException.Cancelled> { stream.recv(cancellation) }
        assertEquals("kept", text(stream.recv()))
        assertFailsWith<HcpException.Cancelled> { nodes.client.connect(nodes.server.address(), cancellation) }
        assertFailsWith<HcpException.Cancelled> { nodes.client.connect(Identity.generate().address(), cancellation) }
    }

    @Test
    fun `shutting a node down ends what waits for it`() = within {
        val nodes = echoPair(network)
        val session = nodes.client.connect(nodes.server.address())
        val stream = session.open(ECHO)
        val status = nodes.server.status()
        assertEquals(ListenerStatus.Reachable, status.next())
        val receiving = async(start = CoroutineStart.UNDISPATCHED) { runCatching { stream.recv() } }
        nodes.server.shutdown()
        assertTrue(receiving.await().exceptionOrNull() is HcpException.Closed)
        assertFailsWith<HcpException.Closed> { nodes.server.reachable() }
        assertFailsWith<HcpException.Closed> { nodes.server.connect(nodes.client.address()) }
        session.closed()
        assertFailsWith<HcpException.Closed> { session.open(ECHO) }
        assertFailsWith<HcpException.Unreachable> { nodes.client.connect(nodes.server.address()) }
    }

    @Test
    fun `a node runs until it is shut down, though no handle is left`() = within {
        val nodes = echoPair(network)
        val address = nodes.server.address()
        nodes.server.close()
        val session = nodes.client.connect(address)
        nodes.client.close()
        val stream = session.open(ECHO)
        stream.send("both are there".encodeToByteArray())
        assertEquals("both are there", text(stream.recv()))
    }

    @Test
    fun `use shuts a node down`() = within {
        val client = NodeBuilder(Identity.generate(), network).bind()
        val address = NodeBuilder(Identity.generate(), network).bind().use { server ->
            client.connect(server.address()).shutdown()
            server.address()
        }
        assertFailsWith<HcpException.Unreachable> { client.connect(address) }
    }

    @Test
    fun `closing the only handle of a stream abandons it`() = within {
        val ended = CompletableDeferred<Throwable?>()
        val server = NodeBuilder(Identity.generate(), network)
            .protocol("watch/1", Access.ANYONE) { stream, _ ->
                ended.complete(runCatching { stream.messages().collect {} }.exceptionOrNull())
            }
            .bind()
        val session = NodeBuilder(Identity.generate(), network).bind().connect(server.address())
        val stream = session.open("watch/1")
        stream.send("here".encodeToByteArray())
        stream.close()
        assertTrue(ended.await() is HcpException.Closed)
    }

    @Test
    fun `two nodes meet through a folder`() = within {
        inTemporaryFolder { folder ->
            val one = Network.Local(LocalNetwork("$folder/addresses"))
            val other = Network.Local(LocalNetwork("$folder/addresses"))
            val server = NodeBuilder(Identity.generate(), one).protocol(ECHO, Access.ANYONE, serve = ::echo).bind()
            val client = NodeBuilder(Identity.generate(), other).bind()
            val stream = client.connect(server.address()).open(ECHO)
            stream.send("over loopback".encodeToByteArray())
            assertEquals("over loopback", stream.messages().take(1).toList().map(::text).single())
            server.shutdown()
            client.shutdown()
            assertFailsWith<HcpException.Storage> { LocalNetwork("/proc/nothing/here") }
        }
    }
    @Test
    fun `a restricted node is found by its clients alone`() = within {
        val memory = MemoryNetwork()
        val key = DiscoveryKey.generate()
        val server = NodeBuilder(Identity.generate(), Network.Memory(memory))
            .protocol(ECHO, Access.ANYONE, serve = ::echo)
            .restrictedTo(listOf(key.publicKey()))
            .bind()
        val listed = Network.Memory(memory.withDiscoveryKey(server.address(), key))
        val stream = NodeBuilder(Identity.generate(), listed).bind().connect(server.address()).open(ECHO)
        stream.send("found".encodeToByteArray())
        assertEquals("found", text(stream.recv()))
        val stranger = NodeBuilder(Identity.generate(), Network.Memory(memory)).bind()
        assertFailsWith<HcpException.Authentication> { stranger.connect(server.address()) }
        assertTrue(Network.Memory(memory).listenRestricted(Identity.generate(), listOf(key.publicKey())).reachable())
        server.restrictTo(listOf(DiscoveryKey.generate().publicKey()))
        val late = NodeBuilder(Identity.generate(), listed).bind()
        assertFailsWith<HcpException.Authentication> { late.connect(server.address()) }
        assertFailsWith<HcpException.InvalidInput> { server.restrictTo(emptyList()) }
        val many = List(maxDiscoveryClients().toInt() + 1) { key.publicKey() }
        for (clients in listOf(emptyList(), many)) {
            val refused = NodeBuilder(Identity.generate(), network).restrictedTo(clients)
            assertFailsWith<HcpException.InvalidInput> { refused.bind() }
        }
    }
}
