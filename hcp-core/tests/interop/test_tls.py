"""TLS: the key schedule against RFC 8448, keys that are refused, and client against server."""

import pytest
from hcp_reader import keys
from hcp_reader.handshake import APPLICATION_PROTOCOLS, NEW_SESSION_TICKET, HybridClient, hybrid_server
from hcp_reader.schedule import APPLICATION_DATA, SUITES, RecordCipher, Schedule, TlsError, expand_label
from hcp_reader.tls13 import MAX_UPDATES, Client, Server

# RFC 8448, section 3.
SHARED = "8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d"
HASH_OF_HELLOS = "860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8"
HASH_TO_FINISHED = "9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13"


def test_the_key_schedule_gives_the_values_of_rfc_8448() -> None:
    suite = SUITES[0x1301]
    schedule = Schedule(suite, bytes.fromhex(SHARED), bytes.fromhex(HASH_OF_HELLOS))
    assert schedule.early.hex() == "33ad0a1c607ec03b09e6cd9893680ce210adf300aa1f2660e1b22e10f170f92a"
    assert schedule.handshake.hex() == "1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac"
    assert schedule.client_handshake.hex() == "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21"
    assert schedule.server_handshake.hex() == "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38"
    assert schedule.master.hex() == "18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919"
    schedule.server_finished(bytes.fromhex(HASH_TO_FINISHED))
    assert schedule.client_application.hex() == "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"
    assert schedule.server_application.hex() == "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"
    assert schedule.exporter_master.hex() == "fe22f881176eda18eb8f44529e6792c50c9a3f89452f68d8ae311b4309d3cf50"
    client = schedule.finished(schedule.client_handshake, bytes.fromhex(HASH_TO_FINISHED))
    assert client.hex() == "a8ec436d677634ae525ac1fcebe11a039ec17694fac6e98527b642f2edd5ce61"
    key = expand_label(suite, schedule.server_handshake, "finished", b"", 32)
    assert key.hex() == "008d3b66f816ea559f96b537e885c31fc068bf492c652f01f288a1d8cdc19fc8"
    for secret, wanted in (
        (schedule.server_handshake, "3fce516009c21727d0f2e4e86ee403bc 5d313eb2671276ee13000b30"),
        (schedule.client_handshake, "dbfaa693d1762c5b666af5d950258d01 5bd3c71b836e0b76bb73265f"),
        (schedule.server_application, "9f02283b6c9c07efc26bb9f2ac92e356 cf782b88dd83549aadf1e984"),
        (schedule.client_application, "17422dda596ed5d9acd890e3c63f5051 5b78923dee08579033e523d9"),
    ):
        cipher = RecordCipher(suite, secret)
        assert f"{cipher.key.hex()} {cipher.iv.hex()}" == wanted


def test_the_hybrid_shares_have_the_sizes_of_the_draft_and_meet_in_one_secret() -> None:
    client = HybridClient()
    share, secret = hybrid_server(client.share)
    assert (len(client.share), len(share), len(secret)) == (1_216, 1_120, 64)
    assert client.secret(share) == secret


def connect(client: Client, server: Server) -> None:
    server.feed(client.take())
    client.feed(server.take())
    client.finish()
    server.feed(client.take())


@pytest.mark.parametrize("suite", SUITES)
def test_client_and_server_agree_on_keys_exporters_and_data(suite: int) -> None:
    secret = keys.Secret()
    client, server = Client([suite]), Server(secret)
    server.feed(client.take())
    server.write(b"half-RTT")
    client.feed(server.take())
    assert bytes(client.received) == b"half-RTT" and client.server_key == secret.public
    assert client.take() == b""
    client.finish()
    client.write(bytes(40_000))
    client.update_key()
    client.write(b"after the update")
    client.close()
    flight = client.take()
    for byte in flight[:3_000]:
        server.feed(bytes([byte]))
    server.feed(flight[3_000:])
    assert bytes(server.received) == bytes(40_000) + b"after the update" and server.closed
    assert server.records == [16_384, 16_384, 7_232, 16]
    exporters = [client.export(label, 32) for label in ("EXPORTER-a", "EXPORTER-b")]
    assert exporters == [server.export(label, 32) for label in ("EXPORTER-a", "EXPORTER-b")]
    assert exporters[0] != exporters[1]


def test_a_changed_byte_anywhere_in_the_servers_flight_is_refused() -> None:
    secret = keys.Secret()
    for at in range(11, 2_000, 97):
        client, server = Client(), Server(secret)
        server.feed(client.take())
        flight = bytearray(server.take())
        if at >= len(flight):
            break
        flight[at] ^= 1
        with pytest.raises(TlsError):
            client.feed(bytes(flight))
            # A length that grew is waited for.
            client.feed(bytes(20_000))
        assert client.server_key is None
    else:
        raise AssertionError("the flight is longer than what was changed of it")


@pytest.mark.parametrize("asks", [False, True])
def test_no_more_than_32_key_updates_come_without_data(asks: bool) -> None:
    client, server = Client(), Server(keys.Secret())
    connect(client, server)
    for _ in range(2):
        for _ in range(MAX_UPDATES):
            client.update_key(asks)
        client.write(b"data")
    server.feed(client.take())
    assert bytes(server.received) == b"datadata"
    for _ in range(MAX_UPDATES + 1):
        client.update_key(asks)
    with pytest.raises(TlsError, match="too many"):
        server.feed(client.take())


def test_a_session_ticket_is_refused() -> None:
    client, server = Client(), Server(keys.Secret())
    connect(client, server)
    server.say(NEW_SESSION_TICKET, bytes(16))
    with pytest.raises(TlsError, match="out of place"):
        client.feed(server.take())


def test_another_protocol_name_is_refused_by_either_side() -> None:
    other: dict[int, bytes | None] = {APPLICATION_PROTOCOLS: b"\0\6\5hcp/2"}
    with pytest.raises(TlsError):
        Server(keys.Secret()).feed(Client(changes=other).take())
    client, server = Client(), Server(keys.Secret(), changes=other)
    server.feed(client.take())
    with pytest.raises(TlsError):
        client.feed(server.take())


def test_data_before_finished_is_refused() -> None:
    client, server = Client(), Server(keys.Secret())
    server.feed(client.take())
    with pytest.raises(TlsError):
        server.feed(bytes([APPLICATION_DATA, 3, 3, 0, 1, 0]))


ORDER_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"


@pytest.mark.parametrize(
    "key",
    [
        "01" + "00" * 31,  # the identity
        "00" * 32,  # order 4
        ORDER_8,
        "ec" + "ff" * 30 + "7f",  # order 2
        "ee" + "ff" * 30 + "7f",  # the identity, not canonical
        "01" + "00" * 30 + "80",  # the identity with a sign
        "02" + "00" * 31,  # not a point
        "00" * 31,
        "00" * 33,
    ],
)
def test_keys_that_are_refused(key: str) -> None:
    with pytest.raises(keys.KeyRefused):
        keys.check_public(bytes.fromhex(key))


def test_a_key_with_a_torsion_component_is_refused() -> None:
    good = keys.Secret(bytes(32)).public
    assert keys.check_public(good) == good
    decompress, add = keys._decompress, keys._add  # pyright: ignore[reportPrivateUsage]
    x, y, z, _ = add(decompress(good), decompress(bytes.fromhex(ORDER_8)))
    inverse = pow(z, keys.P - 2, keys.P)
    x, y = x * inverse % keys.P, y * inverse % keys.P
    with pytest.raises(keys.KeyRefused, match="torsion"):
        keys.check_public((y | (x & 1) << 255).to_bytes(32, "little"))


def test_signatures_are_verified_strictly() -> None:
    secret = keys.Secret()
    signature = secret.sign(b"message")
    keys.verify(secret.public, b"message", signature)
    with pytest.raises(keys.SignatureRefused):
        keys.verify(secret.public, b"another", signature)
    unreduced = int.from_bytes(signature[32:], "little") + keys.ORDER
    with pytest.raises(keys.SignatureRefused, match="reduced"):
        keys.verify(secret.public, b"message", signature[:32] + unreduced.to_bytes(32, "little"))
    with pytest.raises(keys.SignatureRefused, match="small order"):
        keys.verify(secret.public, b"message", b"\1" + bytes(31) + signature[32:])


def test_addresses_are_spelled_as_tor_spells_them() -> None:
    # Tor's own: rend-spec-v3, section 1.2 of the protocol's overview.
    address = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion"
    assert keys.onion(keys.from_onion(address)) == address
    with pytest.raises(keys.KeyRefused):
        keys.from_onion(address.replace("pg6", "pg7"))
