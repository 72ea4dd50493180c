"""An echo bot: accepts everybody who asks, and answers every message with itself.

`HCP_PASSPHRASE=… python echo.py FOLDER` opens the profile in `FOLDER`, or makes it, and goes online on Tor. With
`local:OTHER` as a second argument it stays on this machine, where whoever names the same folder `OTHER` can reach it.
"""

import asyncio
import os
import sys
from pathlib import Path

import hcp


async def echo(bot: hcp.Messenger, network: hcp.Network) -> None:
    events = bot.events(await bot.cursor())
    await bot.go_online(network)
    print(bot.address, flush=True)
    async for event in events:
        match event.kind:
            case hcp.EventKind.Contact(contact) if contact.state == hcp.ContactState.PENDING:
                await bot.accept(contact.address)
            case hcp.EventKind.MessageReceived(message):
                await bot.send(message.contact, message.text)
            case _:
                pass


async def main(folder: Path, local: str | None) -> None:
    passphrase = hcp.Passphrase(os.environ.get("HCP_PASSPHRASE", ""))
    if (folder / "profile.key").exists():
        profile = await hcp.Profile.open(folder, passphrase)
    else:
        profile = await hcp.Profile.create(folder, passphrase, "Echo")
    async with hcp.Messenger(profile) as bot:
        if local is not None:
            await echo(bot, hcp.LocalNetwork(local))
        else:
            async with await hcp.TorNetwork.bootstrap(folder / "tor", folder / "cache") as network:
                await echo(bot, network)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [folder, place] if place.startswith("local:"):
            arguments = Path(folder), place.removeprefix("local:")
        case [folder]:
            arguments = Path(folder), None
        case _:
            sys.exit("usage: HCP_PASSPHRASE=… python echo.py FOLDER [local:FOLDER]")
    try:
        asyncio.run(main(*arguments))
    except hcp.HcpError as error:
        sys.exit(f"echo.py: {error}")
