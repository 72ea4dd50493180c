"""The Rust program that the tests talk to, and sessions with it."""

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest
from hcp_reader.drive import PATIENCE, Tcp, connect, dial
from hcp_reader.keys import from_onion
from hcp_reader.opening import Dialling
from helpers import Connect


class Rust:
    """A running interop-peer and the folder of its local network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = os.environ["HCP_INTEROP_PEER"]
        self._process = subprocess.Popen(
            [program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._lines = Queue[str]()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.node, self.service = (from_onion(self.line(name)) for name in ("node ", "service "))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self, prefix: str = "", patience: float = PATIENCE) -> str:
        """The next line that it says, without its beginning."""
        try:
            line = self._lines.get(timeout=patience)
        except Empty:
            raise AssertionError("the peer says nothing") from None
        assert line.startswith(prefix), line
        return line.removeprefix(prefix)

    def say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._reader.join(PATIENCE)
            self._process.stdout.close()
        assert self._process.returncode == 0


@pytest.fixture(scope="session")
def rust(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rust]:
    peer = Rust(tmp_path_factory.mktemp("network"))
    yield peer
    peer.end()


@pytest.fixture
def dialled(rust: Rust) -> Iterator[Connect]:
    """Sessions with the node; the keyword arguments are those of Dialling."""
    opened = list[Tcp]()

    def make(**arguments: Any) -> Tcp:
        tcp = dial(Dialling(rust.node, **arguments), connect(rust.folder, rust.node))
        opened.append(tcp)
        return tcp

    yield make
    for tcp in opened:
        tcp.shut()
