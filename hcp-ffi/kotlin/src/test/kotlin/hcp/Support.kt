package hcp

import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import java.nio.file.Files
import java.nio.file.Path
import kotlin.io.path.ExperimentalPathApi
import kotlin.io.path.deleteRecursively
import kotlin.time.Duration
import kotlin.time.Duration.Companion.seconds

/** Runs a test that must be done in time. */
fun within(deadline: Duration = 30.seconds, test: suspend CoroutineScope.() -> Unit) = runBlocking {
    withTimeout(deadline, test)
}

@OptIn(ExperimentalPathApi::class)
inline fun inTemporaryFolder(test: (Path) -> Unit) {
    val folder = Files.createTempDirectory("hcp-kotlin")
    try {
        test(folder)
    } finally {
        folder.deleteRecursively()
    }
}

fun text(message: ByteArray?): String? = message?.decodeToString()

const val ECHO = "example/echo/1"

suspend fun echo(stream: Stream, @Suppress("UNUSED_PARAMETER") session: Session) {
    stream.messages().collect { stream.send(it) }
    stream.finish()
}

/** A node that answers each message with itself, and one that knows nothing. */
class EchoPair(val server: Node, val client: Node)

suspend fun echoPair(network: Network, access: Access = Access.ANYONE): EchoPair {
    val server = NodeBuilder(Identity.generate(), network).protocol(ECHO, access, serve = ::echo).bind()
    return EchoPair(server, NodeBuilder(Identity.generate(), network).bind())
}
