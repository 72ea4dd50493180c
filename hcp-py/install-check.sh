#!/usr/bin/env bash
# Installs hcp-py as its users do, with pip and a release build, into a new environment, and talks with it.
# Takes a quarter of an hour on two cores. Needs Debian's python3 (3.11 or later) and python3-venv.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly target=${CARGO_TARGET_DIR:-target}
venv=$(mktemp -d)
readonly venv
trap 'rm -rf "$venv"' EXIT

python3 -m venv "$venv"
CARGO_TARGET_DIR=$(realpath -m "$target/pip") "$venv/bin/pip" install --quiet --disable-pip-version-check ./hcp-py
cd "$venv"
"$venv/bin/python" - <<'PYTHON'
import asyncio
import hcp


async def echo(stream: hcp.Stream, session: hcp.Session) -> None:
    async for message in stream:
        await stream.send(message)


async def main() -> None:
    network = hcp.MemoryNetwork()
    server = await hcp.Node.bind(hcp.Identity.generate(), network, {"example/echo/1": (hcp.Access.ANYONE, echo)})
    client = await hcp.Node.bind(hcp.Identity.generate(), network)
    session = await client.connect(server.address)
    stream = await session.open("example/echo/1")
    await stream.send(b"hello")
    assert await stream.recv() == b"hello"


asyncio.run(main())
print("pip install ./hcp-py gives a module that works:", hcp.__file__)
PYTHON
