"""The package as a whole: its errors mirror the core's kinds, it says what it exports, and it ends cleanly."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hcp
from hcp import errors

ROOT = Path(__file__).parents[2]


def subclasses() -> list[type[errors.HcpError]]:
    return errors.HcpError.__subclasses__()


def test_every_kind_of_the_core_has_its_class() -> None:
    source = (ROOT / "hcp-core" / "src" / "error.rs").read_text()
    variants = re.findall(r"^    ([A-Z][A-Za-z]+),$", source, re.MULTILINE)
    assert len(variants) > 5
    kinds = [re.sub(r"(?<!^)(?=[A-Z])", "_", variant).lower() for variant in variants]
    assert [str(kind) for kind in errors.ErrorKind] == kinds
    assert [variant + "Error" for variant in variants] == [cls.__name__ for cls in subclasses()]
    assert [cls.kind for cls in subclasses()] == list(errors.ErrorKind)


def test_errors_survive_pickling() -> None:
    error = errors.ClosedError("it ended", "SessionEnded", ["a cause"])
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.reason, copy.kind) == (type(error), "it ended", "SessionEnded", "closed")
    assert copy.__notes__ == ["caused by: a cause"]


def test_everything_that_is_exported_is_there() -> None:
    for name in hcp.__all__:
        assert hasattr(hcp, name)
    assert hcp.__version__ == re.findall(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[0]


def run(program: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


def test_example_of_the_package_runs() -> None:
    assert hcp.__doc__ is not None
    example = hcp.__doc__.split("::\n\n", 1)[1].split("\n\nEverything", 1)[0]
    program = "\n".join(line.removeprefix("    ") for line in example.splitlines())
    done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'hello'\n", "")


def test_example_of_the_readme_runs() -> None:
    readme = (ROOT / "hcp-py" / "README.md").read_text()
    program, output = re.findall(r"```(?:python|text)\n(.*?)```", readme, re.DOTALL)[:2]
    done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")


@pytest.mark.parametrize("attempt", range(5))
def test_process_that_leaves_everything_open_ends_cleanly(attempt: int, tmp_path: Path) -> None:
    program = f"""
import asyncio, hcp

async def wait(stream, session):
    await stream.send(b"ready")
    await stream.recv()

async def main():
    network = hcp.MemoryNetwork()
    server = await hcp.Node.bind(hcp.Identity.generate(), network, {{"wait": (hcp.Access.ANYONE, wait)}})
    client = await hcp.Node.bind(hcp.Identity.generate(), network, keepalive=(0.001, 1))
    session = await client.connect(server.address)
    streams = [await session.open("wait") for _ in range(16)]
    for stream in streams:
        assert await stream.recv() == b"ready"
    waiting = [asyncio.create_task(stream.recv()) for stream in streams]
    cost = hcp.Argon2Cost(hcp.Argon2Cost.MEMORY_KIB.start, 1, 1)
    identity, passphrase = hcp.Identity.generate(), hcp.Passphrase("x")
    profile = await hcp.Profile.create_for(identity, {str(tmp_path / "profile")!r}, passphrase, "", cost)
    messenger = hcp.Messenger(profile)
    await messenger.go_online(network)
    waiting.append(asyncio.create_task(anext(messenger.events(hcp.Cursor.START), None)))
    await asyncio.sleep(0)
    global kept
    kept = (server, client, session, streams, messenger) if {attempt} % 2 else None
    print("end")

asyncio.run(main())
"""
    done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_using_a_node_outside_of_a_loop_is_an_error() -> None:
    node = hcp.Node.bind(hcp.Identity.generate(), hcp.MemoryNetwork())
    with pytest.raises(RuntimeError, match="no running event loop"):
        node.send(None)
