#!/usr/bin/env bash
# Lets the Python implementation of the protocol, made from docs/protocol.md alone, talk to the library.
# usage: check.sh [--without-tor] [PYTEST-ARGUMENT…]
#
# The Rust side is what `cargo build --workspace --all-targets` makes: a call of cargo for this package alone would choose
# other features for its dependencies and compile Arti anew. --without-tor builds it alone and without Arti, in a minute.
# Needs Debian's python3 (3.11 or later) and python3-venv.
set -euo pipefail
cd "$(dirname "$0")/../../.."

readonly target=${CARGO_TARGET_DIR:-target} interop=hcp-core/tests/interop
readonly venv=$target/interop-venv requirements=$interop/requirements.txt

. scripts/python-venv.sh

main() {
  local build=(cargo build --workspace --examples)
  if [ "${1:-}" = --without-tor ]; then
    shift
    build=(cargo build -p hcp-core --no-default-features --example interop-peer)
  fi
  make_venv "$venv" "$requirements"
  run "${build[@]}"
  HCP_INTEROP_PEER=$(realpath "$target/debug/examples/interop-peer")
  export HCP_INTEROP_PEER PYTHONDONTWRITEBYTECODE=1
  run "$venv/bin/python" -m pytest --rootdir "$interop" --config-file "$interop/pytest.ini" "$interop" "$@"
}

main "$@"
