package hcp

import java.time.Duration
import kotlin.io.path.readBytes
import kotlin.io.path.writeBytes
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlin.test.fail
import kotlin.time.Duration.Companion.minutes
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.async
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first

/** On the private Tor network that `HCP_TESTNET` describes. */
class TorTest {
    private val testnetFile: String = System.getenv("HCP_TESTNET")
        ?: fail("no private Tor network: run the tests as target/debug/hcp-testnet -- hcp-ffi/kotlin/check.sh")

    private fun testnet(): PrivateNetwork = loadPrivateNetwork(testnetFile)

    @Test
    fun `two nodes talk over Tor, and the state directory is free afterwards`() = within(3.minutes) {
        inTemporaryFolder { folder ->
            val builder = TorNetworkBuilder("$folder/a/state", "$folder/a/cache").privateNetwork(testnet())
            val progress = builder.progress()
            val arti = builder.bootstrap()
            assertEquals(100.toUByte(), progress.values().first { it.percent == 100.toUByte() }.percent)
            val (identity, key) = Identity.generate() to DiscoveryKey.generate()
            val other = TorNetworkBuilder("$folder/b/state", "$folder/b/cache")
                .privateNetwork(testnet())
                .discoveryKey(identity.address(), key)
                .bootstrap()

            val isolated = other.isolated()
            val server = NodeBuilder(identity, Network.Tor(arti))
                .protocol(ECHO, Access.ANYONE, serve = ::echo)
                .restrictedTo(listOf(key.publicKey()))
                .bind()
            val client = NodeBuilder(Identity.generate(), Network.Tor(isolated)).bind()
            assertTrue(server.reachable())
            val session = client.connectAnonymously(server.address())
            val stream = session.open(ECHO)
            stream.send("over Tor".encodeToByteArray())
            assertEquals("over Tor", text(stream.recv()))
            other.removeDiscoveryKey(identity.address())
            assertFailsWith<HcpException.Authentication> { client.connectAnonymously(server.address()) }
            other.setDiscoveryKey(identity.address(), key)
            client.connectAnonymously(server.address()).shutdown()

            assertFailsWith<HcpException.InUse> {
                TorNetworkBuilder("$folder/a/state", "$folder/a/cache").privateNetwork(testnet()).bootstrap()
            }
            session.shutdown()
            server.shutdown()
            arti.shutdown()
            assertFailsWith<HcpException.Closed> { arti.isolated() }
            assertFailsWith<HcpException.Closed> { NodeBuilder(Identity.generate(), Network.Tor(arti)) }
            rejoin("$folder/a")

            // Closing all handles does the same, on a thread that knows nothing of the runtime.
            client.shutdown()
            listOf(stream, session, isolated, other).forEach(AutoCloseable::close)
            rejoin("$folder/b")
        }
    }

    /** Joins once the state directory is free, which takes a moment. */
    private suspend fun rejoin(folder: String) {
        while (true) {
            try {
                return TorNetworkBuilder("$folder/state", "$folder/cache").privateNetwork(testnet()).bootstrap().shutdown()
            } catch (inUse: HcpException.InUse) {
                delay(50)
            }
        }
    }

    @Test
    fun `two people get acquainted and talk over Tor`() = within(3.minutes) {
        inTemporaryFolder { folder ->
            suspend fun online(name: String): Pair<TorNetwork, Messenger> {
                val tor = TorNetworkBuilder("$folder/$name/state", "$folder/$name/cache").privateNetwork(testnet())
                val network = tor.bootstrap()
                val messenger = Messenger(profile(folder, "$name/profile"))
                messenger.goOnline(Network.Tor(network))
                assertTrue(messenger.reachable())
                return network to messenger
            }
            val (first, alice) = online("alice")
            val (second, bob) = online("bob")
            befriend(alice, bob)
            alice.send(bob.address(), "over Tor")
            bob.awaitMessage("over Tor")
            bob.send(alice.address(), "and back")
            alice.awaitMessage("and back")
            alice.shutdown()
            bob.shutdown()
            first.shutdown()
            second.shutdown()
            rejoin("$folder/alice")
        }
    }

    @Test
    fun `somebody chats with hcp-chat, another process, over Tor`() = within(3.minutes) {
        inTemporaryFolder { folder ->
            ChatDaemon.start(folder, testnetFile, "Carol").use { carol ->
                val address = OnionAddress.parse(field(carol.tells("event" to "ready"), "address"))
                val network = TorNetworkBuilder("$folder/state", "$folder/cache").privateNetwork(testnet()).bootstrap()
                val dave = Messenger(profile(folder, "dave"))
                dave.goOnline(Network.Tor(network))
                carol.tells("event" to "reachable")
                dave.request(address, "Carol", "from Kotlin")
                carol.tells("event" to "contact", "state" to "pending", "greeting" to "from Kotlin")
                carol.ask("contact_accept", "contact" to "${dave.address()}")
                assertEquals("Carol", dave.awaitContact(address, ContactState.ACCEPTED).name)

                val id = dave.send(address, "hello, Rust")
                carol.tells("event" to "message_received", "text" to "hello, Rust", "id" to "$id")
                carol.ask("send", "contact" to "${dave.address()}", "text" to "hello, Kotlin")
                assertEquals(address, dave.awaitMessage("hello, Kotlin").contact)

                val content = Random.nextBytes(500_000)
                val (file, saved) = folder.resolve("file.bin") to folder.resolve("saved.bin")
                file.writeBytes(content)
                val transfer = dave.offerFile(address, "$file")
                carol.tells("event" to "transfer_offered")
                carol.ask("file_accept", "transfer" to "$transfer", "path" to "$saved")
                dave.await { (it as? EventKind.TransferState)?.takeIf { it.id == transfer && it.state == TransferState.Done } }
                assertContentEquals(content, saved.readBytes())
                dave.shutdown()
                network.shutdown()
                carol.end()
            }
        }
    }

    @Test
    fun `a bootstrap that leads nowhere can be cancelled, and times out by itself`() = within(1.minutes) {
        inTemporaryFolder { folder ->
            // Nobody answers at the discard port.
            val nowhere = PrivateNetwork(testnet().authorities.map { it.copy(orAddress = "127.0.0.1:9") })
            val cancellation = Cancellation()
            val builder = TorNetworkBuilder("$folder/state", "$folder/cache").privateNetwork(nowhere)
            val bootstrap = async(start = CoroutineStart.UNDISPATCHED) { runCatching { builder.bootstrap(cancellation) } }
            cancellation.cancel()
            assertTrue(bootstrap.await().exceptionOrNull() is HcpException.Cancelled)
            // Cancelling gave the state directory up.
            val again = TorNetworkBuilder("$folder/state", "$folder/cache")
                .privateNetwork(nowhere)
                .bootstrapDeadline(Duration.ofMillis(100))
            assertFailsWith<HcpException.TimedOut> { again.bootstrap() }
        }
    }

    @Test
    fun `a malformed private network is refused`() {
        val builder = TorNetworkBuilder("state", "cache")
        val network = testnet()
        val short = network.authorities.first().copy(v3Identity = ByteArray(19))
        assertFailsWith<HcpException.InvalidInput> { builder.privateNetwork(PrivateNetwork(listOf(short))) }
        val nowhere = network.authorities.first().copy(orAddress = "nowhere")
        assertFailsWith<HcpException.InvalidInput> { builder.privateNetwork(PrivateNetwork(listOf(nowhere))) }
        assertFailsWith<HcpException.Storage> { loadPrivateNetwork("/nothing/here") }
    }
}
