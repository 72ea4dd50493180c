package hcp

/** Serves the identity's address, as [Network.listen] with a [Cancellation] does. */
suspend fun Network.listen(identity: Identity): Listener = listen(identity, null)
