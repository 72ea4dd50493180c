# Sourced by the checks that run Python: a virtual environment under the target folder, with what a file of requirements pins.

run() {
  printf '+ %s\n' "$*"
  "$@"
}

# make_venv FOLDER REQUIREMENTS
# Makes it when it is missing, was left half made, or is of other requirements.
make_venv() {
  local folder=$1 pinned=$2
  # Written last, so that an environment that was left half made is made again.
  local stamp=$folder/requirements.txt
  if cmp --silent "$pinned" "$stamp" && "$folder/bin/python" -c '' 2>/dev/null; then
    return
  fi
  run python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
  run python3 -m venv --clear "$folder"
  run "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$pinned"
  cp "$pinned" "$stamp"
}
