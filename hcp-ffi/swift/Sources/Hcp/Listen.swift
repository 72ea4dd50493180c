extension Network {
    /// Serves the identity's address, as `listen` with a `Cancellation` does.
    public func listen(identity: Identity) async throws -> Listener {
        try await listen(identity: identity, cancellation: nil)
    }
}
