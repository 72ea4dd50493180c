import Foundation

extension Stream {
    /// The peer's messages, until it ends its direction. Cancelling the task that reads them loses none.
    public var messages: AsyncThrowingStream<Data, Error> {
        AsyncThrowingStream { try await cancellable { try await self.recv(cancellation: $0) } }
    }
}

extension StatusWatch {
    /// The status now, then each that it changes to; an intermediate one may be passed over.
    public var values: AsyncThrowingStream<ListenerStatus, Error> {
        AsyncThrowingStream { try await cancellable { try await self.next(cancellation: $0) } }
    }
}

extension ProgressWatch {
    /// The progress now, then each that it changes to; an intermediate one may be passed over.
    public var values: AsyncThrowingStream<BootstrapProgress, Error> {
        AsyncThrowingStream { try await cancellable { try await self.next(cancellation: $0) } }
    }
}

extension NodeEvents {
    /// What happens to the node, until it is gone. Cancelling the task that reads them loses none.
    public var values: AsyncThrowingStream<NodeEvent, Error> {
        AsyncThrowingStream { try await cancellable { try await self.next(cancellation: $0) } }
    }
}

extension Events {
    /// The events in order, until the messenger is shut down. Cancelling the task that reads them loses none.
    public var values: AsyncThrowingStream<Event, Error> {
        AsyncThrowingStream {
            do {
                return try await cancellable { try await self.next(cancellation: $0) }
            } catch HcpError.Closed {
                return nil
            }
        }
    }
}
