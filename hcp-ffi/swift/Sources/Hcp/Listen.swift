extension Network {
    /// Serves the identity's address, as `listen` with a `Cancellation` does.
    public func listen(identity: Identity) async throws -> Listener {
        try await listen(identity: identity, cancellation: nil)
    }
    /// Serves the identity's address for some clients, as `listenRestricted` with a `Cancellation` does.
    public func listenRestricted(identity: Identity, clients: [DiscoveryPublicKey]) async throws -> Listener {
        try await listenRestricted(identity: identity, clients: clients, cancellation: nil)
    }
}
