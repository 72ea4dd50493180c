package hcp

import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.withContext

/** Runs [block] with the node, which is shut down afterwards; `close` alone would only give the handle up. */
inline fun <R> Node.use(block: (Node) -> R): R = try {
    block(this)
} finally {
    shutdown()
    close()
}

/** Runs [block] with the messenger, which is shut down afterwards; `close` alone would only give the handle up. */
suspend inline fun <R> Messenger.use(block: (Messenger) -> R): R = try {
    block(this)
} finally {
    withContext(NonCancellable) { shutdown() }
    close()
}
