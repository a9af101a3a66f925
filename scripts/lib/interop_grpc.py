"""The part of scripts/interop.sh that speaks gRPC, with Google's grpcio: usage interop_grpc.py ADDRESS CERTIFICATES.

ADDRESS is a node that does not provide the greeter, so every call of it takes the hop.
"""

import os
import sys
import threading
import time

import grpc
import greeter_pb2
import greeter_pb2_grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TIMEOUT = 10
failures = 0


def check(what):
    """Runs a check at once and prints how it went."""

    def now(body):
        global failures
        try:
            body()
            print(f"PASS  grpcio: {what}", flush=True)
        except Exception as error:  # whatever it is, the check failed
            failures += 1
            why = f"{error.code()}: {error.details()}" if isinstance(error, grpc.RpcError) else repr(error)
            print(f"FAIL  grpcio: {what}: {why}", flush=True)

    return now


def equal(found, expected):
    assert found == expected, f"expected {expected!r}, found {found!r}"


def refused(call, code):
    try:
        call()
    except grpc.RpcError as error:
        equal(error.code(), code)
        return error
    raise AssertionError(f"answered, expected {code}")


address, certificates = sys.argv[1:]


def read(name):
    with open(os.path.join(certificates, name), "rb") as file:
        return file.read()


def hello(name):
    return greeter_pb2.HelloRequest(name=name)


ca = read("ca_cert.pem")
admin = grpc.ssl_channel_credentials(ca, read("admin_key.pem"), read("admin_cert.pem"))
channel = grpc.secure_channel(address, admin)
greeter = greeter_pb2_grpc.GreeterStub(channel)
stranger = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca))


@check("unary call through another node, as the certificate's holder")
def _():
    reply = greeter.SayHello(hello("Python"), timeout=TIMEOUT)
    equal((reply.message, reply.node), ("Hello, Python!", "greeter-1"))
    assert reply.caller.endswith("/admin/admin"), reply.caller


@check("metadata, both ways")
def _():
    reply, call = greeter.SayHello.with_call(hello("x"), timeout=TIMEOUT, metadata=[("x-demo", "seen")])
    assert ("x-demo", "seen") in call.initial_metadata(), call.initial_metadata()


@check("an error's code, message and trailers")
def _():
    error = refused(lambda: greeter.SayHello(hello(""), timeout=TIMEOUT), grpc.StatusCode.INVALID_ARGUMENT)
    assert "name is empty" in error.details(), error.details()
    assert ("x-demo-trailer", "sent") in error.trailing_metadata(), error.trailing_metadata()


@check("a claim of another's name does not reach the service")
def _():
    forged = [("p2p-principal", "spiffe://c/admin/mallory"), ("p2p-hop", "1"), ("p2p-entry-node", "x")]
    reply = greeter.SayHello(hello("x"), timeout=TIMEOUT, metadata=forged)
    assert reply.caller.endswith("/admin/admin"), reply.caller


@check("server streaming: 1000 messages")
def _():
    replies = greeter.Repeat(greeter_pb2.RepeatRequest(name="x", count=1000), timeout=TIMEOUT)
    equal(sum(1 for _ in replies), 1000)


@check("client streaming: 1000 messages")
def _():
    reply = greeter.Gather((hello(str(number)) for number in range(1000)), timeout=TIMEOUT)
    equal(reply.message, "Hello, " + " and ".join(map(str, range(1000))) + "!")


@check("bidirectional streaming: each answer before the next request, then half-close")
def _():
    turn = threading.Semaphore(1)

    def requests():
        for number in range(100):
            assert turn.acquire(timeout=TIMEOUT)
            yield hello(str(number))

    count = 0
    for reply in greeter.Chat(requests(), timeout=TIMEOUT):
        equal(reply.message, f"Hello, {count}!")
        count += 1
        turn.release()
    equal(count, 100)


@check("a megabyte there and back")
def _():
    name = "x" * 1_000_000
    equal(greeter.SayHello(hello(name), timeout=TIMEOUT).message, f"Hello, {name}!")


@check("the deadline ends a stream that would go on")
def _():
    slow = greeter_pb2.RepeatRequest(name="x", count=100, pause_ms=100)
    began = time.monotonic()
    refused(lambda: list(greeter.Repeat(slow, timeout=0.5)), grpc.StatusCode.DEADLINE_EXCEEDED)
    assert time.monotonic() - began < 1.5


@check("cancelling a stream ends it")
def _():
    stream = greeter.Repeat(greeter_pb2.RepeatRequest(name="x", count=1000, pause_ms=10), timeout=TIMEOUT)
    next(stream)
    stream.cancel()
    refused(lambda: list(stream), grpc.StatusCode.CANCELLED)


@check("100 calls at once on one channel")
def _():
    calls = [greeter.SayHello.future(hello(str(number)), timeout=TIMEOUT) for number in range(100)]
    equal([call.result().message for call in calls], [f"Hello, {number}!" for number in range(100)])


@check("an unknown method: UNIMPLEMENTED, naming the nearest")
def _():
    call = channel.unary_unary("/demo.v1.Greeter/SayHallo", lambda _: b"", bytes)
    error = refused(lambda: call(None, timeout=TIMEOUT), grpc.StatusCode.UNIMPLEMENTED)
    assert "SayHello" in error.details(), error.details()


@check("without a certificate: UNAUTHENTICATED")
def _():
    stub = greeter_pb2_grpc.GreeterStub(stranger)
    refused(lambda: stub.SayHello(hello("x"), timeout=TIMEOUT), grpc.StatusCode.UNAUTHENTICATED)


@check("grpc.health.v1: the node, a routed service, an unknown one, without a certificate")
def _():
    stub = health_pb2_grpc.HealthStub(stranger)
    ask = lambda service: stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)  # noqa: E731
    equal(ask("").status, health_pb2.HealthCheckResponse.SERVING)
    equal(ask("demo.v1.Greeter").status, health_pb2.HealthCheckResponse.SERVING)
    refused(lambda: ask("no.such.Service"), grpc.StatusCode.NOT_FOUND)


@check("grpc.health.v1: Watch sends at once")
def _():
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""), timeout=TIMEOUT)
    equal(next(watch).status, health_pb2.HealthCheckResponse.SERVING)
    watch.cancel()


@check("reflection: the node's services are listed and described")
def _():
    database = ProtoReflectionDescriptorDatabase(channel)
    services = database.get_services()
    assert "p2p.v1.SystemService" in services, services
    method = DescriptorPool(database).FindServiceByName("p2p.v1.SystemService").FindMethodByName("Echo")
    equal(method.name, "Echo")


@check("reflection: the greeter, at the node that provides it")
def _():
    host, port = address.rsplit(":", 1)
    provider = grpc.secure_channel(f"{host}:{int(port) + 3}", admin)
    database = ProtoReflectionDescriptorDatabase(provider)
    service = DescriptorPool(database).FindServiceByName("demo.v1.Greeter")
    equal([method.name for method in service.methods], ["SayHello", "Repeat", "Gather", "Chat"])


@check("a call by reflection alone, without stubs")
def _():
    from google.protobuf.message_factory import GetMessageClass

    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName("p2p.v1.SystemService").FindMethodByName("GetInfo")
    request, reply = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary("/p2p.v1.SystemService/GetInfo", request.SerializeToString, reply.FromString)
    equal(call(request(), timeout=TIMEOUT).node_id, "coordinator-1")


channel.close()
stranger.close()
sys.exit(1 if failures else 0)
