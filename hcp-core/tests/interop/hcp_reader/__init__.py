"""HCP/1, read and written by a second implementation, made from docs/protocol.md and the RFCs that it names.

It exists to prove that the document suffices: it shares no code with the library, and where the two differ, one of them
or the document is wrong. It is for tests: it is slow, it keeps no secret out of memory, and it trusts its caller.

- `keys`: what is refused as a public key, how signatures are verified, how an onion address is spelled.
- `schedule`, `handshake`, `tls13`: TLS 1.3 with X25519MLKEM768 and raw public keys: the key schedule and the records,
  the messages, and a client and a server without I/O.
- `protobuf`, `frames`: frames, control messages and padding.
- `delegation`: speaking for a service.
- `owner`: what owner and nodes of a service give each other. `log`: segments, links and checkpoints of its log.
- `opening`, `stream`, `session`: how a connection begins, one stream, and a session with its lanes; no I/O.
- `drive`: what moves their bytes: through memory, or over TCP on loopback.
"""
