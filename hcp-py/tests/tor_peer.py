"""A process of its own that serves echo over the private Tor network until its input ends.

usage: tor_peer.py DESCRIPTION FOLDER
"""

import asyncio
import sys
from pathlib import Path

from conftest import ECHO, echo

import hcp


async def main(description: Path, folder: Path) -> None:
    private = await hcp.PrivateNetwork.load(description)
    async with await hcp.TorNetwork.bootstrap(folder / "state", folder / "cache", private_network=private) as network:
        protocols = {ECHO: (hcp.Access.ANYONE, echo)}
        async with await hcp.Node.bind(hcp.Identity.generate(), network, protocols) as node:
            if not await node.reachable():
                sys.exit("the node stopped before it was reachable")
            print(node.address, flush=True)
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
