#!/usr/bin/env bash
# What `make test` runs, step by step; the first failing step is named and ends it. scripts/install-deps.sh goes first.
# usage: test.sh              everything
#        test.sh on-tor FILE  the steps that share one private Tor network, inside it; FILE gets their times
set -euo pipefail
cd "$(dirname "$0")/.."

readonly bin=${CARGO_TARGET_DIR:-target}/debug
current='starting' summary=''
on_tor='' times=''
if [ "${1:-}" = on-tor ]; then
  on_tor=yes times=$2
else
  times=$(mktemp)
fi

finish() {
  local status=$?
  if [ "$on_tor" ]; then
    printf '%s' "$summary" >"$times"
    [ "$status" -eq 0 ] || echo "FAILED in the step: $current" >&2
    exit "$status"
  fi
  summary+=$(cat "$times")$'\n'
  rm -f "$times"
  printf '\nStep                                                Seconds\n%s' "$summary"
  printf '%-50s %8d\n' total "$SECONDS"
  if [ "$status" -ne 0 ]; then
    echo "make test FAILED in the step: $current" >&2
    exit "$status"
  fi
  echo
  echo 'make test passed. Left to make test-all: the whole fault suite of the replicated service and its soak, the'
  echo 'failover measurement (20 nodes killed on a private Tor network), the Swift package in a Debian folder that has Swift,'
  echo '5,000 seeds of the messenger, pip install with a release build, the demonstration of the chat, the log in PostgreSQL, 200'
  echo 'kills of nodes that replicate it and as many on a private Tor network, and what a node that was away for a million entries'
  echo 'costs the others.'
  echo 'Left to make bench-wire and make bench-log: what the session and the log cost.'
  echo 'Left to the hand: hours of fuzzing (hcp-core/fuzz/README.md).'
  echo 'Left to make audit: known vulnerabilities in dependencies, which needs the internet.'
}
trap finish EXIT

# Not to be called in a condition: bash would ignore failures inside.
step() {
  current=$1
  shift
  printf '\n== %s\n' "$current"
  local start=$SECONDS
  "$@"
  summary+=$(printf '%-50s %8d' "$current" "$((SECONDS - start))")$'\n'
}

# The workspaces of the benches and of the fuzzer have lock files of their own, which a new dependency of hcp-core's outdates.
lock_files_fit() {
  local manifest
  for manifest in benches/Cargo.toml hcp-core/fuzz/Cargo.toml; do
    cargo update --quiet --workspace --locked --manifest-path "$manifest"
  done
}

tree() {
  cargo tree --locked --prefix none --edges normal,build -p hcp-core "$@"
}

# A build without the feature `tor` is for simulators, fuzzing and apps' own tests: a minute instead of ten.
no_arti_without_tor() {
  local with without found
  with=$(tree)
  without=$(tree --no-default-features --features replica,messenger,testing)
  grep -qE '^(arti|tor)-' <<<"$with" || {
    echo 'the pattern finds no Arti in the default build, so this check proves nothing' >&2
    return 1
  }
  if found=$(grep -E '^(arti|tor)-' <<<"$without"); then
    printf 'a build without the feature tor compiles:\n%s\n' "$found" >&2
    return 1
  fi
}

if [ "$on_tor" ]; then
  step '  Rust tests' cargo test --workspace
  step '  Python: stubs, types, tests' hcp-py/check.sh
  step '  Kotlin: jar, tests' hcp-ffi/kotlin/check.sh
  exit
fi

step 'fetch the locked dependencies' cargo fetch --locked
step 'the other lock files fit' lock_files_fit
step 'formatting' cargo fmt --check
step 'build' cargo build --workspace --all-targets
step 'clippy' cargo clippy --workspace --all-targets -- -D warnings
step 'no Arti without the feature tor' no_arti_without_tor
step 'clippy without default features' \
  cargo clippy -p hcp-core --no-default-features --features testing --all-targets -- -D warnings
step 'clippy with the messenger and without Tor' \
  cargo clippy -p hcp-core --no-default-features --features testing,messenger --all-targets -- -D warnings
# Its tests need a server, and are left to make test-all.
step 'clippy with PostgreSQL' \
  cargo clippy -p hcp-core --no-default-features --features testing,postgres --all-targets -- -D warnings
step 'the protocol in Python, from its document' hcp-core/tests/interop/check.sh
# A network takes half a minute to start, so all tests share one.
step 'a private Tor network, and on it:' "$bin/hcp-testnet" -- "$0" on-tor "$times"
# On a network of its own, whose time periods are short.
step 'one address while nodes fail' "$bin/hcp-demo" faults --nodes 3 --connects 20 --cases kill,freeze,thaw --worst \
  --out "$bin/faults"
step 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps
step 'licences, bans, sources' cargo deny --offline check licenses bans sources
