"""The echo bot of examples/sketches as a program, with somebody who talks to it."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from people import person, received

import hcp

ROOT = Path(__file__).parents[2]
BOT = ROOT / "examples" / "sketches" / "echo.py"


@asynccontextmanager
async def bot_process(folder: Path) -> AsyncGenerator[hcp.OnionAddress, None]:
    """Runs the bot on a local network and kills it in the end, as a power cut does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        BOT,
        folder / "bot",
        f"local:{folder / 'network'}",
        env={**os.environ, "HCP_PASSPHRASE": "correct horse"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield hcp.OnionAddress((await process.stdout.readline()).decode().strip())
    finally:
        process.kill()
        await process.wait()


@pytest.mark.timeout(120)
async def test_accepts_a_stranger_and_echoes_also_after_a_restart(tmp_path: Path) -> None:
    network = hcp.LocalNetwork(tmp_path / "network")
    async with person(tmp_path, "User", network) as user:
        async with bot_process(tmp_path) as address:
            await user.request(address, "Bot", "Please echo")
            for text in ("first", "second\nwith two lines", "\N{ONION}"):
                await user.send(address, text)
                assert (await received(user, text)).contact == address
        await user.send(address, "written while the bot is dead")
        async with bot_process(tmp_path) as again:
            assert again == address
            await received(user, "written while the bot is dead")


@pytest.mark.parametrize(
    ("arguments", "passphrase", "expected"),
    [([], "x", "usage: "), (["FOLDER", "tor"], "x", "local:FOLDER"), (["FOLDER", "local:x"], "", "passphrase is empty")],
)
async def test_refuses_bad_input_with_a_sentence(
    tmp_path: Path, arguments: list[str], passphrase: str, expected: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        BOT,
        *arguments,
        env={**os.environ, "HCP_PASSPHRASE": passphrase},
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert expected in errors.decode()
    assert len(errors.decode().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("readme", ["README.md", "hcp-py/README.md"])
def test_readme_shows_the_bot_as_it_is(readme: str) -> None:
    readme = (ROOT / readme).read_text()
    (shown,) = re.findall(r"```python\n(async def echo\(bot.*?)```", readme, re.DOTALL)
    assert shown in BOT.read_text()
