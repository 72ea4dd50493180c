// swift-tools-version: 6.0
import PackageDescription

// check.sh adds what UniFFI generates: Sources/HcpFFI/HcpFFI.h and Sources/Hcp/Hcp.swift.
let package = Package(
    name: "Hcp",
    products: [.library(name: "Hcp", targets: ["Hcp"])],
    targets: [
        .systemLibrary(name: "HcpFFI"),
        .target(name: "Hcp", dependencies: ["HcpFFI"]),
        .testTarget(name: "HcpTests", dependencies: ["Hcp"]),
    ],
    // The generated code is not written for Swift 6's checks of concurrency.
    swiftLanguageModes: [.v5]
)
