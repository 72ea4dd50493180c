package hcp

import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow

/**
 * The peer's messages, until it ends its direction.
 *
 * A message that comes in at the moment in which the collecting coroutine is cancelled may be lost; [Stream.recv] with a
 * [Cancellation] loses none.
 */
fun Stream.messages(): Flow<ByteArray> = flow {
    while (true) emit(recv() ?: break)
}

/** The status now, then each that it changes to; an intermediate one may be passed over. */
fun StatusWatch.values(): Flow<ListenerStatus> = flow {
    while (true) emit(next() ?: break)
}

/** The progress now, then each that it changes to; an intermediate one may be passed over. */
fun ProgressWatch.values(): Flow<BootstrapProgress> = flow {
    while (true) emit(next() ?: break)
}
