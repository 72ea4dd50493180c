/// Runs `operation` with a `Cancellation` that is used when the task is cancelled.
///
/// Swift does not pass the cancelling of a task on to Rust; this does:
/// `try await cancellable { try await node.connect(address: address, cancellation: $0) }`.
public func cancellable<Result>(
    _ operation: (Cancellation) async throws -> Result
) async throws -> Result {
    let cancellation = Cancellation()
    return try await withTaskCancellationHandler {
        try await operation(cancellation)
    } onCancel: {
        cancellation.cancel()
    }
}
