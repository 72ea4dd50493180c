extension NodeBuilder {
    /// Serves streams of the protocol with a closure, for peers that `access` admits.
    ///
    /// What the closure throws resets the stream; the node goes on. When the session ends, the closure finds its stream
    /// closed, and its task is cancelled a few seconds later.
    public func `protocol`(
        _ name: String,
        access: Access,
        serve: @escaping @Sendable (Stream, Session) async throws -> Void
    ) -> NodeBuilder {
        `protocol`(protocol: name, access: access, handler: ClosureHandler(closure: serve))
    }
}

extension Service {
    /// Serves streams of the protocol at the service's address with a closure, as `NodeBuilder.protocol` does at the node's
    /// own.
    public func `protocol`(
        _ name: String,
        access: Access,
        serve: @escaping @Sendable (Stream, Session) async throws -> Void
    ) -> Service {
        `protocol`(protocol: name, access: access, handler: ClosureHandler(closure: serve))
    }
}

private final class ClosureHandler: StreamHandler {
    let closure: @Sendable (Stream, Session) async throws -> Void

    init(closure: @escaping @Sendable (Stream, Session) async throws -> Void) {
        self.closure = closure
    }

    func serve(stream: Stream, session: Session) async throws {
        try await closure(stream, session)
    }
}
