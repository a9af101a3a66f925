"""Malformed HTTP, for scripts/fuzz_http.py: hand-made cases and mutations of good ones.

`malformed.py http1|http2 HOST:PORT CA SEED MUTATIONS`; the first line says what came back, each other one what was wrong.
A connection that is closed without a word is a fitting answer to bytes that are no request.
"""

import collections
import os
import random
import socket
import ssl
import struct
import sys

import h2.config
import h2.connection
import h2.events
import h2.exceptions

PATIENCE = 8
TOKEN = os.environ.get("TOKEN", "")
BEARER = f"authorization: Bearer {TOKEN}\r\n".encode()
ECHO = "/p2p.v1.SystemService/Echo"
HELLO = "/demo.v1.Greeter/SayHello"
CHAT = "/demo.v1.Greeter/Chat"
# OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED, OUT_OF_RANGE,
# UNIMPLEMENTED, UNAUTHENTICATED; and INTERNAL, which gRPC has for messages that cannot be parsed or unpacked.
FITTING = {0, 1, 3, 4, 5, 7, 8, 11, 12, 13, 16}

GOOD = [
    b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /cluster/nodes?state=alive&limit=1 HTTP/1.1\r\nhost: localhost\r\n" + BEARER + b"\r\n",
    b"POST /rpc HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 46\r\n" + BEARER
    + b'\r\n{"jsonrpc":"2.0","method":"a.B/C","id":"1234"}',
    b"POST /rpc HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n" + BEARER
    + b'\r\n2e\r\n{"jsonrpc":"2.0","method":"a.B/C","id":"1234"}\r\n0\r\n\r\n',
]  # fmt: skip
HTTP1 = [
    b"\r\n\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/0.9\r\n\r\n",
    b"GET /livez HTTP/1.0\r\n\r\n",
    b"GET /livez HTTP/2.0\r\nhost: x\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: a\r\n obs: fold\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost : a\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: a\r\nx: \x00\r\n\r\n",
    b"GET /livez HTTP/1.1\nhost: a\n\n",
    b"GET /livez HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n",
    b"POST /rpc HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde",
    b"POST /rpc HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /livez HTTP/1.1\r\n\r\n",
    b"POST /rpc HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\nabc",
    b"POST /rpc HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"POST /rpc HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;" + b"x" * 20000 + b"\r\nabcde\r\n0\r\n\r\n",
    b"POST /rpc HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n{}",
    b"GET http://elsewhere/livez HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET //livez HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /%00%ff%2e%2e HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /cluster/nodes?state=%zz&limit=-1&after=%00 HTTP/1.1\r\nhost: a\r\n" + BEARER + b"\r\n",
    b"GET /cluster/nodes?" + b"a=b&" * 10000 + b" HTTP/1.1\r\nhost: a\r\n" + BEARER + b"\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
    b"CONNECT localhost:443 HTTP/1.1\r\nhost: a\r\n\r\n",
    b"BREW /livez HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: a\r\n" + b"".join(b"x-%d: y\r\n" % number for number in range(500)) + b"\r\n",
    b"GET /livez HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
    b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n" * 200,
    b"POST " + HELLO.encode() + b" HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0",
    b"POST /rpc HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100001\r\n" + BEARER + b"\r\n" + b"[" * 100_001,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 100,
]  # fmt: skip


def message(payload, flag=0, length=None):
    return struct.pack(">BI", flag, len(payload) if length is None else length) + payload


# Bodies that are no gRPC messages, and heads that are none.
GRPC_BODIES = [
    b"", b"\0", b"\0\0\0\0", message(b""), message(b"", length=5), message(b"x" * 10, length=5), message(b"x", length=0xFFFFFFFF),
    message(b"\x0a\x03abc", flag=1), message(b"\x0a\x03abc", flag=255), message(b"\x0a\xff\xff\xff\xff\x0f"),
    message(b"\x0a\x02\xff\xfe"), message(b"\xff" * 64), message(b"\x0b" * 5000), message(b"\x08" + b"\xff" * 20),
    message(b"\x0a\x03abc") * 3, b"\xff" * 60_000, message(b"\x0a" + b"\x80" * 10),
]  # fmt: skip
GRPC_HEADS = [
    [], [("te", "gzip")], [("grpc-timeout", "")], [("grpc-timeout", "99999999999S")], [("grpc-timeout", "-1S")],
    [("grpc-timeout", "0n")], [("grpc-timeout", "1X")], [("grpc-encoding", "gzip")], [("grpc-encoding", "nonsense")],
    [("grpc-accept-encoding", ",,,")], [("x-bin", "!!!!")], [("p2p-target-node", "")], [("p2p-target-node", "\u00e9")],
    [("p2p-target-node", "x" * 5000)], [("p2p-hop", "999999999999")], [("p2p-principal", "spiffe://bench/admin/admin")],
    [("authorization", "Bearer a.b.c")], [("authorization", "\u00ff")], [("traceparent", "0" * 1000)],
    [("content-length", "5")], [("expect", "100-continue")], [("grpc-previous-rpc-attempts", "-1")],
]  # fmt: skip
CONTENT_TYPES = ["application/grpc", "application/grpc+json", "application/grpc-web", "application/grpcx", "application/grpc;x", ""]
PATHS = [ECHO, HELLO, CHAT, "/grpc.health.v1.Health/Watch", "/p2p.v1.GossipService/Exchange", "/p2p.v1.PeerService/Calls",
         "/p2p.v1.EnrollmentService/Enroll", "/p2p.v1.EnrollmentService/Recover", "/", "//", "/x/", "/x//y", "/%2f", "/x" * 3000, "*"]  # fmt: skip


class Target:
    def __init__(self, address, ca):
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.ca = ca

    def connect(self, protocol):
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols([protocol])
        plain = socket.create_connection((self.host, self.port), timeout=PATIENCE)
        return context.wrap_socket(plain, server_hostname="localhost")

    def ask(self, protocol, data):
        """Sends `data`, says that no more comes, and reads to the end: what came, or None if that took too long."""
        answer = b""
        with self.connect(protocol) as stream:
            try:
                stream.sendall(data)
                stream.settimeout(PATIENCE)
                # The client's half of TLS ends; its socket stays open for the answer.
                stream.unwrap().close() if not data else None
            except OSError:
                pass
            try:
                while part := stream.recv(65536):
                    answer += part
                    if protocol == "http/1.1" and finished(answer):
                        break
            except TimeoutError:
                return answer or None
            except OSError:
                pass
        return answer


def finished(answer):
    """Whether one whole HTTP/1 answer is there."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return b"chunked" not in head.lower()


def http1(target, rng, mutations):
    cases = HTTP1 + [mutated(rng, rng.choice(GOOD)) for _ in range(mutations)]
    seen, wrong = collections.Counter(), []
    for case in cases:
        answer = target.ask("http/1.1", case)
        if not answer:
            # Bytes that are the beginning of a request are waited for.
            seen["still waiting" if answer is None else "closed"] += 1
            continue
        head = answer.partition(b"\r\n\r\n")[0]
        try:
            status = int(head.split(b" ")[1])
        except (IndexError, ValueError):
            # What a client that speaks HTTP/2 on HTTP/1.1 gets is no answer of HTTP/1.
            wrong.append(f"no HTTP in answer to {case[:80]!r}: {answer[:80]!r}")
            continue
        parsed = b"x-content-type-options" in head.lower()
        seen[f"{status}" + ("" if parsed or status < 400 else " by hyper")] += 1
        if status >= 500:
            wrong.append(f"{status} in answer to {case[:120]!r}")
        elif status >= 400 and parsed and b"application/problem+json" not in head:
            wrong.append(f"{status} without problem+json in answer to {case[:120]!r}")
    return seen, wrong


def mutated(rng, good):
    data = bytearray(good)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at:at] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randrange(1, 8)]
            case 2:
                data[at:at] = data[at : at + rng.randrange(1, 30)] * rng.randrange(1, 50)
            case 3 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case _:
                data[at : at + 1] = rng.choice([b"\r\n", b"\0", b" ", b":", b"%", b"\xff", b"\t", b"/", b"\r", b"\n"])
    return bytes(data)


def http2(target, rng, mutations):
    seen, wrong = collections.Counter(), []
    grpc(target, rng, seen, wrong)
    for _ in range(mutations):
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        connection.initiate_connection()
        for number in range(rng.randrange(1, 4)):
            stream = 1 + 2 * number
            connection.send_headers(stream, head(rng.choice(PATHS[:6]), "application/grpc", TOKEN))
            connection.send_data(stream, message(b"\x0a\x03abc"), end_stream=rng.random() < 0.8)
        good = connection.data_to_send()
        # The preface is left, or nothing of HTTP/2 would be reached.
        bad = good[:24] + mutated(rng, good[24:])
        # The last frame is one that ends the connection: what comes before it is answered.
        goaway = struct.pack(">I", 8)[1:] + b"\x07\0\0\0\0\0" + bytes(8)
        answer = target.ask("h2", bad + goaway)
        seen["mutated frames: answered" if answer else "mutated frames: closed" if answer == b"" else "mutated frames: no end"] += 1
    return seen, wrong


def head(path, content_type, token, extra=()):
    fields = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"), (":path", path), ("te", "trailers")]
    if content_type:
        fields.append(("content-type", content_type))
    if token and not any(name == "authorization" for name, _ in extra):
        fields.append(("authorization", f"Bearer {token}"))
    return fields + [field for field in extra if field[0] != "te"] + [field for field in extra if field[0] == "te"]


def grpc(target, rng, seen, wrong):
    """Calls whose frames are good and whose content is not."""
    cases = [(ECHO, "application/grpc", body, []) for body in GRPC_BODIES]
    cases += [(HELLO, "application/grpc", body, []) for body in GRPC_BODIES]
    cases += [(CHAT, "application/grpc", body, []) for body in GRPC_BODIES]
    cases += [(path, "application/grpc", message(b"\x0a\x03abc"), extra) for path in (ECHO, HELLO) for extra in GRPC_HEADS]
    cases += [(HELLO, kind, message(b"\x0a\x03abc"), []) for kind in CONTENT_TYPES]
    cases += [(path, kind, body, []) for path in PATHS for kind in CONTENT_TYPES[:2] for body in (b"", message(b"\xff" * 9))]
    rng.shuffle(cases)
    for path, kind, body, extra in cases:
        for token in (TOKEN, ""):
            outcome = call(target, head(path, kind, token, extra), body)
            what = f"{path[:60]} as {kind!r} with {body[:20]!r} {extra} {'with a token' if token else ''}"
            match outcome:
                case ("grpc", code):
                    seen[f"grpc-status {code}"] += 1
                    if code not in FITTING:
                        wrong.append(f"grpc-status {code} for {what}")
                case ("http", status, media):
                    seen[f"HTTP {status}"] += 1
                    if status >= 500 or (status >= 400 and media != "application/problem+json"):
                        wrong.append(f"HTTP {status} {media} for {what}")
                case ("reset", code):
                    seen[f"reset {code}"] += 1
                case other:
                    seen[str(other)] += 1
                    if other == "no end":
                        wrong.append(f"no end of {what}")


def call(target, fields, body):
    """How a call over a connection of its own ends."""
    configuration = h2.config.H2Configuration(header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False)
    connection = h2.connection.H2Connection(configuration)
    status, media, code = None, None, None
    with target.connect("h2") as stream:
        connection.initiate_connection()
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in fields]
        connection.send_headers(1, encoded, end_stream=not body)
        for at in range(0, len(body), 16384):
            part = body[at : at + 16384]
            if connection.local_flow_control_window(1) < len(part):
                break
            connection.send_data(1, part, end_stream=at + 16384 >= len(body))
        try:
            stream.sendall(connection.data_to_send())
            while data := stream.recv(65536):
                for event in connection.receive_data(data):
                    match event:
                        case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                            found = {name: value for name, value in event.headers}
                            status = int(found.get(":status", status or 0))
                            media = found.get("content-type", media)
                            code = int(found["grpc-status"]) if "grpc-status" in found else code
                        case h2.events.StreamReset():
                            return ("grpc", code) if code is not None else ("reset", event.error_code)
                        case h2.events.ConnectionTerminated():
                            return ("goaway", int(event.error_code))
                        case h2.events.StreamEnded():
                            return ("grpc", code) if code is not None else ("http", status, media)
                        case h2.events.DataReceived() if fields[3][1].endswith("/Watch"):
                            # It goes on for as long as one likes.
                            return ("watch",)
                stream.sendall(connection.data_to_send())
        except TimeoutError:
            return "no end"
        except (OSError, h2.exceptions.ProtocolError):
            pass
    return "closed"


def main():
    kind, address, ca, seed, mutations = sys.argv[1:]
    rng = random.Random(int(seed))
    seen, wrong = {"http1": http1, "http2": http2}[kind](Target(address, ca), rng, int(mutations))
    print(", ".join(f"{count} × {what}" for what, count in sorted(seen.items())))
    for each in wrong:
        print(each)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
