#!/usr/bin/env bash
# Builds the jar, with the native library inside, and tests it. Compiles no Rust: `cargo build --workspace` goes before.
# The tests need a private Tor network: run this as `target/debug/hcp-testnet -- hcp-ffi/kotlin/check.sh`.
set -euo pipefail
cd "$(dirname "$0")"

readonly root=$PWD/../..
readonly bin=$(realpath "${CARGO_TARGET_DIR:-$root/target}/debug")

[ -e "$bin/libhcp_ffi.so" ] || {
  echo "check.sh: $bin/libhcp_ffi.so is missing: run cargo build --workspace first" >&2
  exit 1
}
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || {
  echo 'check.sh: only Linux on x86-64 is packaged so far' >&2
  exit 1
}

shown=$(awk '/^```kotlin$/ { on = 1; next } /^```$/ { on = 0 } on' "$root/README.md")
[ -n "$shown" ] && [[ $(< "$root/examples/sketches/Hello.kt") == *"$shown"* ]] || {
  echo 'check.sh: what README.md shows is not what stands in examples/sketches/Hello.kt' >&2
  exit 1
}

# Neither what was generated for an older library nor classes whose source is gone may linger.
rm -rf target
mkdir -p target/generated target/native/linux-x86-64
"$bin/uniffi-bindgen" kotlin "$bin/libhcp_ffi.so" "$root/hcp-ffi/uniffi.toml" target/generated
strip --strip-debug -o target/native/linux-x86-64/libhcp_ffi.so "$bin/libhcp_ffi.so"

HCP_BIN=$bin mvn -B -q -Dstyle.color=never verify

# JUnit passes over what it does not take for a test, such as one that returns something, and says nothing.
written=$(grep -rhow '@Test' src/test/kotlin | wc -l)
ran=$(sed -n 's/.*<testsuite .* tests="\([0-9]*\)".*/\1/p' target/surefire-reports/TEST-*.xml | awk '{ n += $1 } END { print n + 0 }')
[ "$ran" -gt 0 ] && [ "$ran" -eq "$written" ] || {
  echo "check.sh: $written Kotlin tests are written and $ran ran" >&2
  exit 1
}
echo "$ran Kotlin tests passed, against $(ls target/hcp-*.jar)"
