//! Compiles the protobuf messages with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/session.proto", "proto/messenger.proto", "proto/file.proto", "proto/service.proto"];
    let set = protox::compile(files, ["proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(set)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
