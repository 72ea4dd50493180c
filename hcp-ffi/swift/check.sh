#!/usr/bin/env bash
# Builds the Swift package and runs its tests, in a Debian folder that has Swift (trixie.sh). Compiles no Rust: `cargo build
# --workspace` goes before. Takes root.
set -euo pipefail
cd "$(dirname "$0")"

readonly root=$PWD/../..
readonly target=$(realpath "${CARGO_TARGET_DIR:-$root/target}")
readonly bin=$target/debug package=$target/swift

[ -e "$bin/libhcp_ffi.so" ] || {
  echo "check.sh: $bin/libhcp_ffi.so is missing: run cargo build --workspace first" >&2
  exit 1
}

# Copied anew, but for what Swift has compiled: sources that were removed must not linger.
mkdir -p "$package"
find "$package" -mindepth 1 -maxdepth 1 ! -name .build -exec rm -rf {} +
cp -R Package.swift Sources Tests "$package"
"$bin/uniffi-bindgen" swift "$bin/libhcp_ffi.so" "$root/hcp-ffi/uniffi.toml" "$package/generated"
mv "$package/generated/HcpFFI.h" "$package/Sources/HcpFFI/"
mv "$package/generated/Hcp.swift" "$package/Sources/Hcp/"
mkdir "$package/lib"
strip --strip-debug -o "$package/lib/libhcp_ffi.so" "$bin/libhcp_ffi.so"

output=$(mktemp)
trap 'rm -f "$output"' EXIT
./trixie.sh "$package" env LD_LIBRARY_PATH=/package/lib swift test --disable-xctest -Xlinker -L/package/lib 2>&1 |
  tee "$output"

written=$(grep -rho '^ *@Test' Tests | wc -l)
grep -q "Test run with $written tests passed" "$output" || {
  echo "check.sh: $written Swift tests are written, and not all of them passed" >&2
  exit 1
}
