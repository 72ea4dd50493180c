#!/usr/bin/env bash
# Measures how soon clients are served after a node fails, by this library and by what others do; Onionbalance comes from PyPI,
# into the target folder.
# usage: bench-failover.sh OUT ARGUMENT…    OUT gets the table, the figures and the plot
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/python-venv.sh

readonly target=${CARGO_TARGET_DIR:-target}
readonly venv=$target/onionbalance
make_venv "$venv" scripts/bench-failover.txt
run "$target/release/hcp-demo" bench-failover --onionbalance "$venv/bin/onionbalance" --out "$@"
