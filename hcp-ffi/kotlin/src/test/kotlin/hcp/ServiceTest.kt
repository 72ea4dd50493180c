package hcp

import java.time.Instant
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotEquals
import kotlin.test.assertNull
import kotlin.test.assertTrue

/** Services that several nodes speak for: what an owner issues, what a replica shows, what a dialler refuses. */
class ServiceTest {
    private val network = Network.Memory(MemoryNetwork())
    private val now = Instant.now().epochSecond.toULong()
    private val today = Validity(now - 86_400u, now + 86_400u)
    private val service = Identity.generate()
    private val owner = OwnerKey.generate()
    private val certificate = OwnerCertificate.issue(service, owner.publicKey(), today)

    private fun credentials(serial: ULong, lowest: ULong, validity: Validity = today): ReplicaCredentials {
        val key = SessionKey.generate()
        val delegation = owner.delegate(service.address(), key.publicKey(), Round(serial, lowest, validity))
        return ReplicaCredentials(service.address(), certificate, delegation, key)
    }

    private suspend fun replica(credentials: ReplicaCredentials): Node {
        val listener = network.listen(service)
        assertTrue(listener.reachable())
        assertEquals(ListenerStatus.Reachable, listener.status().current())
        val offer = Service(listener, credentials).protocol(ECHO, Access.ANYONE, serve = ::echo)
        assertFailsWith<HcpException.InUse> { Service(listener, credentials) }
        val node = NodeBuilder(Identity.generate(), network).service(offer).bind()
        assertFailsWith<HcpException.InvalidInput> { NodeBuilder(Identity.generate(), network).service(offer) }
        return node
    }

    @Test
    fun `what an owner issues comes back from its bytes`() {
        val credentials = credentials(7u, 5u)
        val (certificateBytes, delegationBytes) = certificate.toBytes() to credentials.delegation().toBytes()
        assertEquals(ownerCertificateLen(), certificateBytes.size.toULong())
        assertEquals(delegationLen(), delegationBytes.size.toULong())
        assertEquals(certificate, OwnerCertificate.fromBytes(certificateBytes))
        assertEquals(credentials.delegation(), Delegation.fromBytes(delegationBytes))
        assertEquals(certificate, credentials.certificate())
        assertEquals(owner.publicKey() to today, certificate.ownerKey() to certificate.validity())
        assertEquals(7uL to 5uL, credentials.delegation().serial() to credentials.delegation().lowestSerial())
        val key = credentials.sessionKey().publicKey()
        assertEquals(key, credentials.delegation().sessionKey())
        assertEquals(key, PublicKey.fromBytes(key.asBytes()))
        assertNotEquals(key, owner.publicKey())
        val seed = ByteArray(32) { 5 }
        assertEquals(OwnerKey.fromSeed(seed).publicKey(), SessionKey.fromSeed(seed).publicKey())
    }

    @Test
    fun `what nobody would accept is refused`() {
        assertFailsWith<HcpException.InvalidInput> { Validity(2u, 1u) }
        assertFailsWith<HcpException.InvalidInput> { Round(4u, 5u, today) }
        assertFailsWith<HcpException.InvalidInput> { PublicKey.fromBytes(ByteArray(32).also { it[0] = 1 }) }
        assertFailsWith<HcpException.ProtocolViolation> { Delegation.fromBytes(ByteArray(127)) }
        val other = Identity.generate().address()
        val good = credentials(7u, 5u)
        assertFailsWith<HcpException.Authentication> {
            ReplicaCredentials(other, good.certificate(), good.delegation(), good.sessionKey())
        }
        good.check(now)
        val old = credentials(7u, 5u, Validity(now - 86_400u, now - 43_200u))
        assertFailsWith<HcpException.Authentication> { old.check(now) }
    }

    @Test
    fun `a dialler verifies and remembers the floor`() {
        val floors = SerialFloors()
        fun verify(credentials: ReplicaCredentials, floors: SerialFloors): ULong {
            val key = credentials.sessionKey().publicKey().asBytes()
            val delegation = credentials.delegation().toBytes()
            return Delegation.verify(service.address(), certificate.toBytes(), delegation, key, now, floors).serial()
        }
        assertEquals(7uL, verify(credentials(7u, 5u), floors))
        assertFailsWith<HcpException.Authentication> { verify(credentials(4u, 0u), floors) }
        val kept = SerialFloors()
        kept.import(floors.export())
        assertEquals(5uL, kept.floor(service.address()))
        kept.forget(service.address())
        assertEquals(4uL, verify(credentials(4u, 0u), kept))
    }

    @Test
    fun `key files hold what owners and replicas need`() = within {
        inTemporaryFolder { folder ->
            val credentials = credentials(7u, 5u)
            KeyFile("$folder/owner").saveOwnerKey(owner, Protection.Plain)
            KeyFile("$folder/session").saveSessionKey(credentials.sessionKey(), Protection.Plain)
            KeyFile("$folder/replica").saveReplicaCredentials(credentials, Protection.Plain)
            assertEquals(owner.publicKey(), KeyFile("$folder/owner").loadOwnerKey(Protection.Plain).publicKey())
            val session = KeyFile("$folder/session").loadSessionKey(Protection.Plain)
            assertEquals(credentials.sessionKey().publicKey(), session.publicKey())
            val replica = KeyFile("$folder/replica").loadReplicaCredentials(Protection.Plain)
            assertContentEquals(credentials.delegation().toBytes(), replica.delegation().toBytes())
            assertFailsWith<HcpException.Authentication> { KeyFile("$folder/owner").loadSessionKey(Protection.Plain) }
        }
    }

    @Test
    fun `a service is dialled by its address`() = within {
        val node = replica(credentials(7u, 5u))
        val floors = SerialFloors()
        val dialler = NodeBuilder(Identity.generate(), network).floors(floors).bind()
        val session = dialler.connectAnonymously(service.address())
        assertEquals(service.address(), session.peer().address())
        assertEquals(7uL, session.delegation()?.serial())
        assertEquals(5uL, floors.floor(service.address()))
        val stream = session.open(ECHO)
        stream.send("for the service".encodeToByteArray())
        assertEquals("for the service", text(stream.recv()))
        // The node's own address shares nothing with that of the service.
        val own = dialler.connect(node.address())
        assertNull(own.delegation())
        assertFailsWith<HcpException.Refused> { own.open(ECHO).recv() }
        floors.import(listOf(SerialFloor(service.address(), 8u)))
        assertFailsWith<HcpException.Authentication> { dialler.connect(service.address()) }
    }

    @Test
    fun `a running node takes a renewed delegation`() = within {
        val node = replica(credentials(7u, 5u))
        val dialler = NodeBuilder(Identity.generate(), network).floors(SerialFloors()).bind()
        val old = dialler.connectAnonymously(service.address())
        node.renew(credentials(8u, 8u))
        val new = dialler.connectAnonymously(service.address())
        assertEquals(7uL to 8uL, old.delegation()?.serial() to new.delegation()?.serial())
        // The session that began before goes on, and says what has become of its delegation.
        for (session in listOf(old, new)) {
            val stream = session.open(ECHO)
            stream.send("for the service".encodeToByteArray())
            assertEquals("for the service", text(stream.recv()))
        }
        new.checkDelegation()
        assertFailsWith<HcpException.Authentication> { old.checkDelegation() }

        assertFailsWith<HcpException.InvalidInput> { dialler.renew(credentials(8u, 8u)) }
        val expired = credentials(9u, 8u, Validity(now - 86_400u, now - 43_200u))
        assertFailsWith<HcpException.Authentication> { node.renew(expired) }
        node.shutdown()
        assertFailsWith<HcpException.Closed> { node.renew(credentials(9u, 8u)) }
    }

    @Test
    fun `an address is served until its listener is closed`() = within {
        val listener = network.listen(service)
        assertFailsWith<HcpException.InUse> { network.listen(service) }
        val status = listener.status()
        assertEquals(ListenerStatus.Reachable, status.next())
        listener.close()
        while (status.next() != null) Unit
        network.listen(service).close()
    }
}
