package hcp

import kotlin.io.path.createDirectory
import kotlin.io.path.readText
import kotlin.io.path.writeText
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotEquals
import kotlin.test.assertTrue

class IdentityTest {
    private val text = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion"

    @Test
    fun `addresses parse, print and compare by value`() {
        val address = OnionAddress.parse(text.uppercase())
        assertEquals(text, address.toString())
        assertEquals(OnionAddress.parse(text), address)
        assertEquals(1, setOf(address, OnionAddress.fromPublicKey(address.publicKey())).size)
        assertNotEquals(address, Identity.generate().address())
    }

    @Test
    fun `a bad address fails with a message that says why`() {
        val error = assertFailsWith<HcpException.InvalidInput> { OnionAddress.parse("nonsense") }
        assertTrue("56 characters" in error.message!!, error.message)
        assertFailsWith<HcpException.InvalidInput> { OnionAddress.fromPublicKey(ByteArray(31)) }
    }

    @Test
    fun `signatures verify under the address alone`() {
        val identity = Identity.fromSeed(ByteArray(32) { 7 })
        val message = "HCP/1 example\u0000hello".encodeToByteArray()
        val signature = identity.sign(message)
        identity.address().verify(message, signature)
        signature[0] = (signature[0] + 1).toByte()
        assertFailsWith<HcpException.Authentication> { identity.address().verify(message, signature) }
        assertFailsWith<HcpException.InvalidInput> { identity.address().verify(message, ByteArray(63)) }
    }

    @Test
    fun `a seed and an expanded key give the same identity again`() {
        val identity = Identity.fromSeed(ByteArray(32) { 1 })
        assertEquals(identity.address(), Identity.fromExpandedSecretKey(identity.expandedSecretKey()).address())
        assertFailsWith<HcpException.InvalidInput> { Identity.fromSeed(ByteArray(33)) }
        assertFailsWith<HcpException.InvalidInput> { Identity.fromExpandedSecretKey(ByteArray(64) { -1 }) }
    }

    @Test
    fun `a sealed key file opens with its passphrase alone`() = within {
        inTemporaryFolder { folder ->
            val identity = Identity.generate()
            val file = KeyFile("$folder/key").cost(Argon2Cost(8u * 1024u, 1u, 1u))
            val sealed = Protection.Passphrase(Passphrase("correct horse"))
            file.save(identity, sealed)
            assertEquals(identity.address(), file.load(sealed).address())
            assertFailsWith<HcpException.Authentication> { file.load(Protection.Passphrase(Passphrase("wrong"))) }
            assertFailsWith<HcpException.Authentication> { file.load(Protection.Plain) }
            assertFailsWith<HcpException.InvalidInput> { file.save(identity, sealed) }
            assertFailsWith<HcpException.InvalidInput> { KeyFile("$folder/none").load(sealed) }
        }
    }

    @Test
    fun `discovery keys print and parse as those of C tor, and are kept in files`() = within {
        val key = DiscoveryKey.generate()
        val text = key.publicKey().toString()
        assertTrue(text.startsWith("descriptor:x25519:"), text)
        assertEquals(key.publicKey(), DiscoveryPublicKey.parse(text))
        assertEquals(key.publicKey(), DiscoveryPublicKey.fromBytes(key.publicKey().asBytes()))
        assertEquals(key.publicKey(), DiscoveryKey.fromSecretBytes(key.secretBytes()).publicKey())
        val address = Identity.generate().address()
        assertTrue(key.cTorLine(address).startsWith("${address.toString().removeSuffix(".onion")}:descriptor:x25519:"))
        assertFailsWith<HcpException.InvalidInput> { DiscoveryPublicKey.parse(text.drop(1)) }
        assertFailsWith<HcpException.InvalidInput> { DiscoveryPublicKey.fromBytes(ByteArray(32)) }
        assertFailsWith<HcpException.InvalidInput> { DiscoveryKey.fromSecretBytes(ByteArray(31)) }
        inTemporaryFolder { folder ->
            val file = KeyFile("$folder/discovery")
            file.saveDiscoveryKey(key, Protection.Plain)
            assertContentEquals(key.secretBytes(), file.loadDiscoveryKey(Protection.Plain).secretBytes())
            assertFailsWith<HcpException.Authentication> { file.load(Protection.Plain) }
        }
    }

    @Test
    fun `an empty passphrase and a cost out of bounds are refused`() {
        assertFailsWith<HcpException.InvalidInput> { Passphrase("") }
        assertFailsWith<HcpException.InvalidInput> { Argon2Cost(1u, 1u, 1u) }
    }

    @Test
    fun `an onion service of C tor goes out and comes back`() = inTemporaryFolder { folder ->
        val identity = Identity.generate()
        exportOnionService(identity, "$folder/service")
        assertEquals("${identity.address()}\n", folder.resolve("service/hostname").readText())
        assertContentEquals(identity.expandedSecretKey(), importOnionService("$folder/service").expandedSecretKey())
        assertFailsWith<HcpException.InvalidInput> { exportOnionService(identity, "$folder/service") }
        folder.resolve("service/hostname").writeText("$text\n")
        assertFailsWith<HcpException.InvalidInput> { importOnionService("$folder/service") }
        folder.resolve("empty").createDirectory()
        assertFailsWith<HcpException.InvalidInput> { importOnionService("$folder/empty") }
        assertFailsWith<HcpException.InvalidInput> { decodeOnionServiceKey(ByteArray(96)) }
    }
}
