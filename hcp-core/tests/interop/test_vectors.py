"""The vectors of hcp-core/tests/vectors, all of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hcp_reader import delegation, log, owner
from hcp_reader import frames as fr
from hcp_reader.drive import Pair
from hcp_reader.keys import Secret, blinded, verify
from hcp_reader.opening import Accepting, Credentials, Dialling, join_mac, lane_hint, proof_message
from hcp_reader.places import Places
from hcp_reader.schedule import TlsError
from hcp_reader.session import BUSY

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


def is_taken(check: Callable[[], object]) -> bool:
    try:
        check()
    except owner.Refused:
        return False
    return True


@pytest.mark.parametrize("case", load("manifest")["cases"], ids=lambda case: case["name"])
def test_manifest(case: dict[str, Any]) -> None:
    values = raw(case["service"]), raw(case["certificate"]), raw(case["manifest"])
    assert is_taken(lambda: owner.check_manifest(*values, case["now"])) == case["good"]


def test_of_two_manifests_one_counts() -> None:
    vectors = load("manifest")
    good = vectors["cases"][0]
    service, certificate = raw(good["service"]), raw(good["certificate"])
    signed = Secret(raw(vectors["keys"]["owner_seed"])).sign(raw(vectors["signed_bytes"]))
    assert signed == raw(good["manifest"])[-64:]
    for pair in vectors["order"]:
        first, second = (
            owner.check_manifest(service, certificate, raw(pair[name]), good["now"]).rank
            for name in ("first", "second")
        )
        assert (first > second, second > first) == (pair["first_counts"], pair["second_counts"])


def test_derivations() -> None:
    vectors = load("grant")["derivations"]
    service, seed = raw(vectors["service"]), raw(vectors["replica_seed"])
    period = owner.Period(**vectors["period"])
    assert owner.session_key(seed, service, vectors["session_number"]).hex() == vectors["session_key"]
    assert owner.discovery_key(seed).hex() == vectors["discovery_key"]
    for name, of, purpose in (
        ("descriptor_signing_seed", seed, b"HCP/1 descriptor-signing key\0"),
        ("revision_secret", raw(vectors["revision_seed"]), b"HCP/1 revision secret\0"),
    ):
        assert owner.derive(of, purpose, service, period.raw()).hex() == vectors[name]
    assert blinded(service, period.number, period.minutes).hex() == vectors["blinded_key"]


@pytest.mark.parametrize("case", load("grant")["requests"], ids=lambda case: case["name"])
def test_request(case: dict[str, Any]) -> None:
    service = raw(load("grant")["service"])
    assert is_taken(lambda: owner.check_request(service, raw(case["request"]))) == case["good"]


@pytest.mark.parametrize("case", load("grant")["grants"], ids=lambda case: case["name"])
def test_grant(case: dict[str, Any]) -> None:
    values = raw(load("grant")["service"]), raw(case["node"]), raw(case["replica_seed"]), raw(case["grant"])
    assert is_taken(lambda: owner.check_grant(*values, case["now"])) == case["good"]


KINDS = "HELLO PROOF JOIN OPEN DATA BULK CREDIT RESET PING PONG DRAIN CLOSE".split()


def as_vector(frame: fr.Frame) -> dict[str, Any]:
    """A frame as frames.json writes it: of BULK the place stands by itself."""
    seen = {"flags": frame.flags, "kind": KINDS[frame.kind - 1], "payload": frame.payload.hex(), "stream": frame.stream}
    if frame.kind == fr.BULK:
        seen |= {"payload": frame.payload[8:].hex(), "place": int.from_bytes(frame.payload[:8], "big")}
    return seen


@pytest.mark.parametrize("case", load("frames"), ids=lambda case: case["name"])
def test_frames(case: dict[str, Any]) -> None:
    data, seen, failed = raw(case["bytes"]), list[fr.Frame](), False
    for at in range(0, len(data) + 1, max(1, len(data) // 50)):
        parser, seen = fr.Parser(), list[fr.Frame]()
        try:
            for part in (data[:at], data[at:]):
                for frame in parser.feed(part):
                    seen.append(frame)
                    if frame.kind in fr.MESSAGES:
                        frame.fields()
            failed = False
        except fr.ProtocolError:
            failed = True
        assert failed == case["error"]
        known = [frame for frame in seen if frame.kind < fr.OPTIONAL]
        # What came before an error counts.
        assert [as_vector(frame) for frame in known] == case["frames"]


def test_known_frames_are_written_as_the_vectors_have_them() -> None:
    written = 0
    for case in load("frames"):
        if case["error"] or "optional" in case["name"] or "padding" in case["name"] or "not whole" in case["name"]:
            continue
        frames = list(fr.Parser().feed(raw(case["bytes"])))
        again = [
            fr.control(frame.kind, frame.stream, **frame.fields().all()) if frame.kind in fr.MESSAGES else frame
            for frame in frames
        ]
        assert b"".join(frame.encode() for frame in again) == raw(case["bytes"]), case["name"]
        written += len(frames)
    assert written > 20


@pytest.mark.parametrize("case", load("padding"), ids=lambda case: str(case["length"]))
def test_padding(case: dict[str, int]) -> None:
    assert fr.padded(case["length"], has_bulk=False) == case["without_bulk"]
    assert fr.padded(case["length"], has_bulk=True) == case["with_bulk"]


@pytest.mark.parametrize("case", load("proof"), ids=lambda case: case["exporter"][:4])
def test_proof(case: dict[str, str]) -> None:
    dialler, acceptor = Secret(raw(case["dialler_seed"])), Secret(raw(case["acceptor_seed"]))
    assert [dialler.public.hex(), acceptor.public.hex()] == [case["dialler"], case["acceptor"]]
    signed = proof_message(raw(case["exporter"]), dialler.public, acceptor.public)
    assert signed.hex() == case["signed"]
    assert dialler.sign(signed).hex() == case["signature"]
    verify(dialler.public, signed, raw(case["signature"]))


@pytest.mark.parametrize("case", load("join"), ids=lambda case: str(case["number"]))
def test_join(case: dict[str, Any]) -> None:
    session, number = raw(case["session_id"]), case["number"]
    assert lane_hint(session).hex() == case["hint"]
    mac = join_mac(raw(case["lane_key"]), session, number, raw(case["exporter"]))
    assert mac.hex() == case["mac"]
    assert fr.Frame(fr.JOIN, 0, session + number.to_bytes(4, "big") + mac).encode() == raw(case["frame"])


def anonymous_pair() -> Pair:
    server = Secret(b"\2" * 32)
    return Pair(Dialling(server.public), Accepting(Credentials.of(server)))


def play(pair: Pair, step: dict[str, Any]) -> None:
    """What happens to the acceptor in one step; an error is raised."""
    acceptor, tls = pair.acceptor, pair.dialler.conns[0].tls
    if "frames" in step:
        tls.write(raw(step["frames"]) * step["times"])
    for _ in range(step.get("key_updates", 0)):
        tls.update_key(asks=True)
    if "finish" in step:
        acceptor.finish(step["finish"])
    if "reset" in step:
        acceptor.reset(step["reset"], 1_024)
    if "drain" in step:
        acceptor.drain()
    acceptor.receive(0, tls.take())


@pytest.mark.parametrize("case", load("session"), ids=lambda case: case["name"])
def test_session(case: dict[str, Any]) -> None:
    pair, steps = anonymous_pair(), case["steps"]
    for number, step in enumerate(steps, 1):
        try:
            play(pair, step)
            failed = False
        except (fr.ProtocolError, TlsError):
            failed = True
        # None before the last one is an error.
        assert failed == (case["error"] and number == len(steps))
        assert (pair.acceptor.closed is not None) == failed
        if case["reads"]:
            pair.acceptor.transmit(0)


@pytest.mark.parametrize("case", load("places"), ids=lambda case: case["name"])
def test_places(case: dict[str, Any]) -> None:
    places, sessions = Places(case["places"]), dict[str, Pair]()
    for step in case["steps"]:
        who, gone = step["who"], None
        if step["do"] == "dial":
            sessions[who] = anonymous_pair()
            gone = places.enter(step["at"] / 1_000, sessions[who].acceptor)
        elif step["do"] == "open":
            sessions[who].dialler.open("test")
            sessions[who].pump()
        else:
            sessions[who].dialler.close()
            sessions[who].pump()
        found = [name for name, pair in sessions.items() if pair.acceptor is gone]
        assert found == ([step["busy"]] if step["busy"] else [])
        if gone is not None:
            gone.close(BUSY)
            pair = sessions.pop(found[0])
            pair.pump()
            assert pair.dialler.closed == BUSY


@pytest.mark.parametrize("case", load("log")["segments"], ids=lambda case: case["name"])
def test_segment(case: dict[str, Any]) -> None:
    segment = log.Segment(raw(case["header"]), raw(case["signature"]), raw(case["payload"]))
    service = raw(load("log")["keys"]["service"])
    assert is_taken(lambda: segment.check(service)) == case["good"]
    if not case["good"]:
        return
    assert segment.tip.hash == raw(case["hash"])
    assert log.payload_of(segment.payload[: log.SALT], log.entries(segment.payload)) == segment.payload
    # What is written from what was read is the same, but for flags that nobody here knows.
    if segment.header[1] < 2:
        author = Secret(raw(load("log")["keys"]["author_seed"]))
        assert log.write(author, service, segment.head, segment.payload) == segment


@pytest.mark.parametrize("case", load("log")["messages"], ids=lambda case: case["name"])
def test_message_of_a_log(case: dict[str, Any]) -> None:
    message = raw(case["message"])
    if case["verdict"] == "skipped":
        assert log.read_message(message) is None
        return
    assert is_taken(lambda: log.read_message(message)) == (case["verdict"] == "good")
    if case["verdict"] == "good":
        read = log.read_message(message)
        assert read is not None
        assert log.write_message(read) == message


def test_signed_bytes_of_a_log() -> None:
    vectors = load("log")
    service, signed = raw(vectors["keys"]["service"]), vectors["signed_bytes"]
    good = vectors["segments"][0]
    segment = log.Segment(raw(good["header"]), raw(good["signature"]), raw(good["payload"]))
    assert segment.tip.signed("segment", service) == raw(signed["segment"])
    assert segment.tip.signed("receipt", service) == raw(signed["receipt"])
    checkpoint = log.read_certificate(raw(vectors["checkpoint"]["certificate"]))
    assert checkpoint.statement.signed(service) == raw(signed["checkpoint"])
    receipts = [raw(case["message"]) for case in vectors["messages"] if case["name"] == "good: receipt"]
    tip, signature = log.read_message(receipts[0]).fields
    verify(raw(vectors["keys"]["author"]), tip.signed("receipt", service), signature)


def test_checkpoint_of_a_log() -> None:
    keys, vectors = load("log")["keys"], load("log")["checkpoint"]
    certificate = log.read_certificate(raw(vectors["certificate"]))
    assert certificate.raw() == raw(vectors["certificate"])
    assert certificate.statement.raw() == raw(vectors["statement"])
    assert certificate.statement.hash == raw(vectors["statement_hash"])
    pieces = raw(vectors["pieces"])
    hashes = [pieces[at : at + 32] for at in range(0, len(pieces), 32)]
    assert hashes[0] == log.hashed("checkpoint piece", b"one piece")
    assert log.state_root(hashes) == certificate.statement.root == raw(vectors["root"])
    summary = raw(vectors["summary"])
    assert log.hashed("checkpoint summary", summary) == certificate.statement.summary == raw(vectors["summary_hash"])
    read = log.read_summary(summary)
    assert read.raw() == summary
    newest = owner.check_signed_manifest(raw(keys["service"]), raw(keys["owner"]), read.newest)
    (told,) = read.manifests
    assert told.hash == log.hashed("manifest in a log", read.newest)
    assert told.version == newest.rank[0]
    lacking = [version for _, version, _ in read.members]
    assert (sorted(lacking), len(newest.members)) == ([0, 0, 0, told.version], 3)
    assert [number for _, _, number in told.places] == [2, 6]
    assert [writer.stands_on for writer in read.logs[1].writers] == [2**32 - 1, 0, 0]
    assert [len(one.writers) for one in read.logs] == [1, 3]
    assert read.logs[0].writers[0].seen == [(1, 4), (2, 9)]


@pytest.mark.parametrize("case", load("log")["certificates"], ids=lambda case: case["name"])
def test_certificate_of_a_checkpoint(case: dict[str, Any]) -> None:
    certificate = log.read_certificate(raw(case["certificate"]))
    service = raw(load("log")["keys"]["service"])
    covered, newest = ([raw(member) for member in case[which]] for which in ("covered", "newest"))
    assert certificate.is_good(service, covered, newest) == case["good"]


def test_every_file_of_vectors_is_read_here() -> None:
    assert {path.name for path in VECTORS.iterdir()} == {
        f"{name}.json"
        for name in (
            "delegation",
            "frames",
            "grant",
            "join",
            "log",
            "manifest",
            "padding",
            "places",
            "proof",
            "session",
        )
    }
