package hcp

/** Runs [block] with the node, which is shut down afterwards; `close` alone would only give the handle up. */
inline fun <R> Node.use(block: (Node) -> R): R = try {
    block(this)
} finally {
    shutdown()
    close()
}
