"""What the tests share: an echo service on a memory network, and what the loop's exception handler was told."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import hcp

ECHO = "example/echo/1"


async def echo(stream: hcp.Stream, _session: hcp.Session) -> None:
    """Sends every message back."""
    async for message in stream:
        await stream.send(message)


@dataclass(frozen=True)
class Pair:
    """Two nodes on one network; the server serves `ECHO` to anyone."""

    network: hcp.MemoryNetwork
    server: hcp.Node
    client: hcp.Node


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    """Two nodes that can reach each other."""
    network = hcp.MemoryNetwork()
    async with (
        await hcp.Node.bind(hcp.Identity.generate(), network, {ECHO: (hcp.Access.ANYONE, echo)}) as server,
        await hcp.Node.bind(hcp.Identity.generate(), network) as client,
    ):
        yield Pair(network, server, client)


@pytest_asyncio.fixture
async def reports() -> AsyncIterator[list[dict[str, Any]]]:
    """What is reported to the loop's exception handler."""
    collected: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: collected.append(context))
    yield collected
    loop.set_exception_handler(None)


async def until(condition: Callable[[], bool]) -> None:
    """Lets the loop turn until the condition holds; the test's own deadline bounds it."""
    while not condition():
        await asyncio.sleep(0.001)


@pytest.fixture(scope="session")
def testnet() -> Path:
    """The description of the private Tor network that the tests run in."""
    description = os.environ.get("HCP_TESTNET")
    if not description:
        pytest.fail(
            "HCP_TESTNET names no private Tor network; run hcp-py/check.sh, or `target/debug/hcp-testnet -- pytest …`",
            pytrace=False,
        )
    return Path(description)
