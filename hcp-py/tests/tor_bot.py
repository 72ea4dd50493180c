"""A process of its own that runs the echo bot of examples/sketches on the private Tor network.

usage: tor_bot.py DESCRIPTION FOLDER
"""

import asyncio
import sys
from pathlib import Path

from people import person

import hcp

sys.path.append(str(Path(__file__).parents[2] / "examples" / "sketches"))

from echo import echo


async def main(description: Path, folder: Path) -> None:
    private = await hcp.PrivateNetwork.load(description)
    async with (
        await hcp.TorNetwork.bootstrap(folder / "state", folder / "cache", private_network=private) as network,
        person(folder, "Echo") as bot,
    ):
        echoing = asyncio.create_task(echo(bot, network))
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        await asyncio.wait([echoing, ended], return_when=asyncio.FIRST_COMPLETED)
        echoing.cancel()
        if not ended.done():
            sys.exit("the bot ended")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
