/* Asks a friend to become a contact, says hello, and prints what the friend answers. */
import hcp.*
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.mapNotNull

suspend fun hello(folder: String, friend: String, network: Network) {
    val alice = Messenger(Profile.create(folder, Passphrase("correct horse battery staple"), "Alice"))
    alice.goOnline(network)
    val bob = OnionAddress.parse(friend)
    alice.request(bob, "Bob", "It is me, from Kotlin")
    alice.send(bob, "hello") // waits on the disk until he accepts
    val answer = alice.events().values().mapNotNull { it.kind as? EventKind.MessageReceived }.first()
    println(answer.message.text)
    alice.shutdown()
}
