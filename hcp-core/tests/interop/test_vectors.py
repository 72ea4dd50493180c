"""The vectors of hcp-core/tests/vectors, all of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hcp_reader import delegation
from hcp_reader.keys import Secret

VECTORS = Path(__file__).parent.parent / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize("case", load("delegation")["cases"], ids=lambda case: case["name"])
def test_delegation(case: dict[str, Any]) -> None:
    service = raw(case["service"])
    floors = delegation.Floors({service: case["floor"]})
    values = raw(case["certificate"]), raw(case["delegation"]), raw(case["server_key"])
    try:
        delegation.check(service, *values, case["now"], floors)
        good = True
    except delegation.DelegationRefused:
        good = False
    assert good == case["good"]
    assert floors.highest[service] == case["floor_after"]


def test_signed_bytes_of_delegations() -> None:
    vectors = load("delegation")
    keys, good = vectors["keys"], vectors["cases"][0]
    service, owner, session = (Secret(raw(keys[f"{name}_seed"])) for name in ("service", "owner", "session"))
    assert [service.public.hex(), owner.public.hex()] == [keys["service"], keys["owner_key"]]
    assert session.public.hex() == keys["session_key"]
    for signer, purpose, signed, paper, length in (
        (service, delegation.CERTIFICATE_PURPOSE, vectors["certificate_signed_bytes"], raw(good["certificate"]), 48),
        (owner, delegation.DELEGATION_PURPOSE, vectors["delegation_signed_bytes"], raw(good["delegation"]), 64),
    ):
        assert purpose + service.public + paper[:length] == raw(signed)
        assert signer.sign(raw(signed)) == paper[length:]
