#!/usr/bin/env bash
# Builds hcp-py and runs all of its checks: the stubs against the module, strict typing, the tests.
# usage: check.sh [PYTEST-ARGUMENT…]
#
# The extension is what `cargo build --workspace` makes: a call of cargo for this package alone, which is what maturin
# does, would choose other features for its dependencies and compile Arti anew. The package is laid out in
# target/python, where the virtual environment finds it as it finds a package that was installed in editable mode.
# Needs Debian's python3 (3.11 or later) and python3-venv, and the private Tor network of hcp-testnet needs tor.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly target=${CARGO_TARGET_DIR:-target}
readonly venv=$target/venv package=$target/python/hcp requirements=hcp-py/requirements-dev.txt

. scripts/python-venv.sh

lay_out() {
  local site
  rm -rf "$package"
  mkdir -p "$package"
  cp hcp-py/python/hcp/*.py hcp-py/python/hcp/*.pyi hcp-py/python/hcp/py.typed "$package/"
  cp "$target/debug/lib_hcp.so" "$package/_hcp.abi3.so"
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  realpath "$target/python" >"$site/hcp.pth"
}

main() {
  local testnet=()
  make_venv "$venv" "$requirements"
  run cargo build --workspace
  lay_out
  # A test network that runs already is used.
  [ -n "${HCP_TESTNET:-}" ] || testnet=("$target/debug/hcp-testnet" --)
  local python
  python=$(realpath --no-symlinks "$venv/bin/python")
  cd hcp-py
  run "$python" -m mypy.stubtest --mypy-config-file pyproject.toml hcp
  run "$python" -m pyright --pythonpath "$python"
  cd ..
  run "${testnet[@]}" "$python" -m pytest --rootdir hcp-py --config-file hcp-py/pyproject.toml "${@:-hcp-py/tests}"
}

main "$@"
