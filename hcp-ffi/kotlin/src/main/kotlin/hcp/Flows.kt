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

/**
 * What happens to the node, until it is gone.
 *
 * An event that happens at the moment in which the collecting coroutine is cancelled may be lost; [NodeEvents.next] with a
 * [Cancellation] loses none.
 */
fun NodeEvents.values(): Flow<NodeEvent> = flow {
    while (true) emit(next() ?: break)
}

/**
 * The events in order, until the messenger is shut down.
 *
 * An event that happens at the moment in which the collecting coroutine is cancelled may be passed over; whoever reads on
 * hands the cursor of the last event that was collected to [Messenger.events].
 */
fun Events.values(): Flow<Event> = flow {
    while (true) {
        val event = try {
            next()
        } catch (closed: HcpException.Closed) {
            break
        }
        emit(event)
    }
}
