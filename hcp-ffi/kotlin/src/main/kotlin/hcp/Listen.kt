package hcp

/** Serves the identity's address, as [Network.listen] with a [Cancellation] does. */
suspend fun Network.listen(identity: Identity): Listener = listen(identity, null)

/** Serves the identity's address for some clients, as [Network.listenRestricted] with a [Cancellation] does. */
suspend fun Network.listenRestricted(identity: Identity, clients: List<DiscoveryPublicKey>): Listener =
    listenRestricted(identity, clients, null)
