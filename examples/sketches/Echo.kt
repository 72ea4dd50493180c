/*
 * An echo bot: accepts everybody who asks, and answers every message with itself.
 *
 * `HCP_PASSPHRASE=… java -cp … EchoKt FOLDER` opens the profile in FOLDER, or makes it, and goes online on Tor. With
 * `local:OTHER` as a second argument it stays on this machine, where whoever names the same folder OTHER can reach it.
 */
import hcp.*
import kotlinx.coroutines.runBlocking

// A suspend fun main would have no dispatcher, and so run on threads of Rust.
fun main(arguments: Array<String>) = runBlocking {
    val folder = arguments.firstOrNull() ?: error("usage: HCP_PASSPHRASE=… java -cp … EchoKt FOLDER [local:FOLDER]")
    val passphrase = Passphrase(System.getenv("HCP_PASSPHRASE") ?: error("set HCP_PASSPHRASE"))
    val profile = try {
        Profile.open(folder, passphrase)
    } catch (none: HcpException.InvalidInput) {
        Profile.create(folder, passphrase, "Echo")
    }
    val network = when (val other = arguments.getOrNull(1)) {
        null -> Network.Tor(TorNetworkBuilder("$folder/tor", "$folder/cache").bootstrap())
        else -> Network.Local(LocalNetwork(other.removePrefix("local:")))
    }

    val bot = Messenger(profile)
    val events = bot.events(bot.cursor())
    bot.goOnline(network)
    println(bot.address())
    events.values().collect { event ->
        try {
            when (val kind = event.kind) {
                is EventKind.Contact -> if (kind.contact.state == ContactState.PENDING) bot.accept(kind.contact.address)
                is EventKind.MessageReceived -> bot.send(kind.message.contact, kind.message.text)
                else -> {}
            }
        } catch (gone: HcpException) {
            // Without harm: a contact may be gone again when the bot comes to answer.
            System.err.println(gone.message)
        }
    }
}
