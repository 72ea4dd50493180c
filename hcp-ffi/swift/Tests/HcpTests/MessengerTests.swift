import Foundation
import Hcp
import Testing

private struct Unexpected: Error {}

/// Two people who are online and know nothing of each other, and a folder that vanishes with them.
private func two(_ test: (Messenger, Messenger, URL) async throws -> Void) async throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let network = Network.memory(MemoryNetwork())
    // Opens fast, and so protects little.
    let cheap = try Argon2Cost(memoryKib: 8 * 1024, passes: 1, lanes: 1)
    func person(_ name: String) async throws -> Messenger {
        let messenger = try Messenger(profile: try await Profile.createFor(
            identity: Identity.generate(),
            folder: folder.appendingPathComponent(name).path,
            passphrase: try Passphrase(text: "correct horse"),
            name: name,
            cost: cheap
        ))
        try await messenger.goOnline(network: network)
        return messenger
    }
    let (alice, bob) = (try await person("Alice"), try await person("Bob"))
    try await test(alice, bob, folder)
    await alice.shutdown()
    await bob.shutdown()
}

extension Messenger {
    /// Waits for an event that `pick` takes.
    fileprivate func wait<Picked>(_ pick: (EventKind) -> Picked?) async throws -> Picked {
        for try await event in try await events().values {
            if let picked = pick(event.kind) { return picked }
        }
        throw Unexpected()
    }

    fileprivate func wait(for address: OnionAddress, _ state: ContactState) async throws {
        try await wait { kind -> Void? in
            if case .contact(let contact) = kind, contact.address == address, contact.state == state { () } else { nil }
        }
    }

    fileprivate func wait(forText text: String) async throws -> Message {
        try await wait { kind -> Message? in
            if case .messageReceived(let message) = kind, message.text == text { message } else { nil }
        }
    }
}

private func befriend(_ alice: Messenger, _ bob: Messenger) async throws {
    try await alice.request(address: bob.address(), petname: "Bob", greeting: "It is me")
    try await bob.wait(for: alice.address(), .pending)
    try await bob.accept(address: alice.address())
    try await alice.wait(for: bob.address(), .accepted)
}

@Suite(.timeLimit(.minutes(1)))
struct MessengerTests {
    @Test func twoPeopleGetAcquaintedAndTalkBothWays() async throws {
        try await two { alice, bob, _ in
            try await befriend(alice, bob)
            let id = try await alice.send(contact: bob.address(), text: "hello")
            #expect(try await bob.wait(forText: "hello").id == id)
            _ = try await bob.send(contact: alice.address(), text: "hello yourself")
            _ = try await alice.wait(forText: "hello yourself")
            let history = try await alice.messages(contact: bob.address(), before: nil, limit: 10)
            #expect(history.map(\.text) == ["hello", "hello yourself"])
        }
    }

    @Test func aFileArrivesWhole() async throws {
        try await two { alice, bob, folder in
            try await befriend(alice, bob)
            let bytes = Data((0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31) })
            let file = folder.appendingPathComponent("cat.jpg")
            try bytes.write(to: file)
            let id = try await alice.offerFile(contact: bob.address(), path: file.path)
            let offer = try await bob.wait { kind -> Transfer? in
                if case .transferOffered(let transfer) = kind { transfer } else { nil }
            }
            #expect(offer.id == id)
            let saved = folder.appendingPathComponent("saved.jpg")
            try await bob.acceptFile(id: id, path: saved.path)
            try await alice.wait { kind -> Void? in
                if case .transferState(id, _, .done) = kind { () } else { nil }
            }
            #expect(try Data(contentsOf: saved) == bytes)
        }
    }

    @Test func whoeverIsBlockedIsNotHeard() async throws {
        try await two { alice, bob, _ in
            try await befriend(alice, bob)
            try await bob.block(address: alice.address())
            #expect(try await bob.contact(address: alice.address()).state == .blocked)
            do {
                _ = try await bob.send(contact: alice.address(), text: "no")
                Issue.record("she is blocked")
            } catch HcpError.InvalidInput {
            }
        }
    }

    @Test func eventsEndWithTheMessengerAndCanBeCancelled() async throws {
        try await two { alice, _, _ in
            let events = try await alice.events(after: try await alice.cursor())
            let waiting = Task { try await cancellable { try await events.next(cancellation: $0) } }
            waiting.cancel()
            do {
                _ = try await waiting.value
                Issue.record("nothing has happened")
            } catch HcpError.Cancelled {
            }
            let reading = Task {
                for try await _ in events.values {}
            }
            await alice.shutdown()
            try await reading.value
            do {
                _ = try await alice.contacts()
                Issue.record("the profile is closed")
            } catch HcpError.Closed {
            }
        }
    }

    @Test func aMalformedIdIsRefused() async throws {
        try await two { alice, _, _ in
            do {
                try await alice.cancel(id: "no id")
                Issue.record("this is no id")
            } catch HcpError.InvalidInput(let message) {
                #expect(message.contains("32"))
            }
        }
    }
}
