package hcp

import kotlinx.coroutines.CancellationException

/**
 * Serves streams of [protocol] with [serve], for peers that [access] admits.
 *
 * What [serve] throws resets the stream and is handed to [onFailure], by default the thread's handler of uncaught
 * exceptions; the node goes on. When the session ends, [serve] finds its stream closed, and is cancelled a few seconds
 * later: neither is a failure.
 */
fun NodeBuilder.protocol(
    protocol: String,
    access: Access,
    onFailure: (Throwable) -> Unit = ::reportUncaught,
    serve: suspend (Stream, Session) -> Unit,
): NodeBuilder = protocol(protocol, access, LambdaHandler(serve, onFailure))

/** Serves streams of [protocol] at the service's address, as [NodeBuilder.protocol] does at the node's own. */
fun Service.protocol(
    protocol: String,
    access: Access,
    onFailure: (Throwable) -> Unit = ::reportUncaught,
    serve: suspend (Stream, Session) -> Unit,
): Service = protocol(protocol, access, LambdaHandler(serve, onFailure))

private class LambdaHandler(
    private val handler: suspend (Stream, Session) -> Unit,
    private val onFailure: (Throwable) -> Unit,
) : StreamHandler {
    override suspend fun serve(stream: Stream, session: Session) {
        try {
            handler(stream, session)
        } catch (cancelled: CancellationException) {
            throw cancelled
        } catch (ended: HcpException.Closed) {
            throw HandlerException.Failed("the stream or its session ended")
        } catch (failure: Throwable) {
            // An Error must end here too: the generated code catches exceptions only, and Rust would wait for ever.
            try {
                onFailure(failure)
            } finally {
                throw HandlerException.Failed(failure.javaClass.name)
            }
        }
    }
}

private fun reportUncaught(failure: Throwable) {
    val thread = Thread.currentThread()
    thread.uncaughtExceptionHandler.uncaughtException(thread, failure)
}
