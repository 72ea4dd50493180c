import Foundation
import Hcp
import Testing

/// Values from concurrent closures.
actor Collected<Value: Sendable> {
    private(set) var values: [Value] = []

    func add(_ value: Value) {
        values.append(value)
    }
}

@Sendable func echo(stream: Hcp.Stream, session: Session) async throws {
    for try await message in stream.messages {
        try await stream.send(message: message)
    }
    await stream.finish()
}

let echoProtocol = "example/echo/1"

/// A node that answers each message with itself, and one that knows nothing.
func echoPair() async throws -> (server: Node, client: Node) {
    let network = Network.memory(MemoryNetwork())
    let server = try await NodeBuilder(identity: Identity.generate(), network: network)
        .protocol(echoProtocol, access: .anyone, serve: echo)
        .bind()
    return (server, try await NodeBuilder(identity: Identity.generate(), network: network).bind())
}

struct Planned: Error {}

@Suite(.timeLimit(.minutes(1)))
struct NodeTests {
    @Test func messagesGoBothWaysUntilBothSidesEnd() async throws {
        let (server, client) = try await echoPair()
        #expect(try await server.reachable())
        let session = try await client.connect(address: server.address())
        #expect(session.peer().address() == server.address())
        let stream = try await session.open(protocol: echoProtocol)
        for text in ["one", "two"] {
            try await stream.send(message: Data(text.utf8))
        }
        await stream.finish()
        var received: [String] = []
        for try await message in stream.messages {
            received.append(String(decoding: message, as: UTF8.self))
        }
        #expect(received == ["one", "two"])
        try await session.shutdown()
        #expect(try await session.closed().kind == .closed)
    }

    @Test func errorsAreCaughtByCase() async throws {
        let (server, client) = try await echoPair()
        let session = try await client.connectAnonymously(address: server.address())
        let unserved = try await session.open(protocol: "nobody/serves/this")
        do {
            _ = try await unserved.recv()
            Issue.record("nobody serves this")
        } catch HcpError.Refused(let message) {
            #expect(message.contains("does not serve"))
        }
        do {
            _ = try await client.connect(address: Identity.generate().address())
            Issue.record("nobody is there")
        } catch HcpError.Unreachable {
        }
        do {
            _ = try OnionAddress.parse(text: "nonsense")
            Issue.record("not an address")
        } catch HcpError.InvalidInput(let message) {
            #expect(message.contains("56 characters"))
        }
    }

    @Test func aHandlerThatThrowsResetsItsStreamAndNothingElse() async throws {
        let network = Network.memory(MemoryNetwork())
        let server = try await NodeBuilder(identity: Identity.generate(), network: network)
            .protocol("throws/1", access: .anyone) { _, _ in throw Planned() }
            .protocol(echoProtocol, access: .anyone, serve: echo)
            .bind()
        let client = try await NodeBuilder(identity: Identity.generate(), network: network).bind()
        let session = try await client.connect(address: server.address())
        let failing = try await session.open(protocol: "throws/1")
        do {
            _ = try await failing.recv()
            Issue.record("the handler has thrown")
        } catch HcpError.Closed {
        }
        let stream = try await session.open(protocol: echoProtocol)
        try await stream.send(message: Data("still here".utf8))
        #expect(try await stream.recv() == Data("still here".utf8))
    }

    @Test func cancellingATaskEndsWhatItWaitsForAndLosesNoMessage() async throws {
        let (server, client) = try await echoPair()
        let session = try await client.connect(address: server.address())
        let stream = try await session.open(protocol: echoProtocol)
        let waiting = Task { try await cancellable { try await stream.recv(cancellation: $0) } }
        waiting.cancel()
        do {
            _ = try await waiting.value
            Issue.record("nothing was sent")
        } catch HcpError.Cancelled {
        }
        try await stream.send(message: Data("kept".utf8))
        #expect(try await stream.recv() == Data("kept".utf8))
    }

    @Test func aSequenceOfMessagesEndsWithItsTask() async throws {
        let (server, client) = try await echoPair()
        let session = try await client.connect(address: server.address())
        let stream = try await session.open(protocol: echoProtocol)
        let collected = Collected<Data>()
        let (first, announce) = AsyncStream<Void>.makeStream()
        let reading = Task {
            for try await message in stream.messages {
                await collected.add(message)
                announce.yield()
            }
        }
        try await stream.send(message: Data("one".utf8))
        for await _ in first { break }
        reading.cancel()
        _ = await reading.result
        try await stream.send(message: Data("two".utf8))
        #expect(try await stream.recv() == Data("two".utf8))
        #expect(await collected.values == [Data("one".utf8)])
    }

    @Test func aNodeRunsUntilItIsShutDown() async throws {
        let network = Network.memory(MemoryNetwork())
        let client = try await NodeBuilder(identity: Identity.generate(), network: network).bind()
        func serveAndForget() async throws -> OnionAddress {
            try await NodeBuilder(identity: Identity.generate(), network: network)
                .protocol(echoProtocol, access: .anyone, serve: echo)
                .bind()
                .address()
        }
        let session = try await client.connect(address: try await serveAndForget())
        let stream = try await session.open(protocol: echoProtocol)
        try await stream.send(message: Data("there".utf8))
        #expect(try await stream.recv() == Data("there".utf8))
        client.shutdown()
        do {
            _ = try await stream.recv()
            Issue.record("the node is down")
        } catch HcpError.Closed {
        }
    }

    @Test func statusIsASequenceThatEndsWithTheNode() async throws {
        let (server, _) = try await echoPair()
        let status = try server.status()
        #expect(status.current() == .reachable)
        server.shutdown()
        var last: ListenerStatus?
        for try await value in status.values {
            last = value
        }
        #expect(last != nil)
    }
}

@Suite(.timeLimit(.minutes(1)))
struct IdentityTests {
    @Test func addressesCompareByValue() throws {
        let text = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion"
        let address = try OnionAddress.parse(text: text.uppercased())
        #expect(address.description == text)
        #expect(try address == OnionAddress.fromPublicKey(key: address.publicKey()))
        #expect(try Set([address, OnionAddress.parse(text: text)]).count == 1)
    }

    @Test func aSealedKeyFileOpensWithItsPassphraseAlone() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let identity = Identity.generate()
        let file = KeyFile(path: folder.appendingPathComponent("key").path)
            .cost(cost: try Argon2Cost(memoryKib: 8 * 1024, passes: 1, lanes: 1))
        let sealed = Protection.passphrase(try Passphrase(text: "correct horse"))
        try await file.save(key: identity, protection: sealed)
        #expect(try await file.load(protection: sealed).address() == identity.address())
        do {
            _ = try await file.load(protection: .passphrase(try Passphrase(text: "wrong")))
            Issue.record("the passphrase is wrong")
        } catch HcpError.Authentication {
        }
    }
}
