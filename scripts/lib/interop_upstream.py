"""The part of scripts/interop.sh that calls a Python service behind a node, with Google's grpcio and the service's own
.proto: usage interop_upstream.py call ENTRY PROVIDER CERTIFICATES, or interop_upstream.py load ENTRY CERTIFICATES.

`call` makes calls of every kind through ENTRY, which does not provide the service, and asks PROVIDER, the node before it,
for reflection. `load` calls until standard input ends, and tells how many calls were answered by which process, and each
that failed.
"""

import os
import sys
import threading
import time
from collections import Counter

import grpc
import stock_pb2
import stock_pb2_grpc

TIMEOUT = 10
failures = 0


def check(what):
    def now(body):
        global failures
        try:
            body()
            print(f"PASS  upstream: {what}", flush=True)
        except Exception as error:  # whatever it is, the check failed
            failures += 1
            why = f"{error.code()}: {error.details()}" if isinstance(error, grpc.RpcError) else repr(error)
            print(f"FAIL  upstream: {what}: {why}", flush=True)

    return now


def equal(found, expected):
    assert found == expected, f"expected {expected!r}, found {found!r}"


def connect(address, certificates):
    def read(name):
        with open(os.path.join(certificates, name), "rb") as file:
            return file.read()

    admin = grpc.ssl_channel_credentials(read("ca_cert.pem"), read("admin_key.pem"), read("admin_cert.pem"))
    return grpc.secure_channel(address, admin)


def item(name, amount=0):
    return stock_pb2.Item(name=name, amount=amount)


def call(entry, provider, certificates):
    channel = connect(entry, certificates)
    stock = stock_pb2_grpc.StockStub(channel)

    @check("unary call of a Python service behind another node")
    def _():
        level = stock.Get(item("tea"), timeout=TIMEOUT)
        equal((level.name, level.amount, level.process), ("tea", 7, "python-1"))
        assert level.caller.endswith("/admin/admin"), level.caller

    @check("an error's code, message and trailers")
    def _():
        try:
            stock.Get(item(""), timeout=TIMEOUT)
        except grpc.RpcError as error:
            equal((error.code(), error.details()), (grpc.StatusCode.INVALID_ARGUMENT, "which item?"))
            assert ("x-stock", "sent") in error.trailing_metadata(), error.trailing_metadata()
        else:
            raise AssertionError("answered")

    @check("server streaming: 1000 messages")
    def _():
        equal([level.amount for level in stock.Watch(item("tea", 1000), timeout=TIMEOUT)], list(range(1000)))

    @check("client streaming: 1000 messages")
    def _():
        equal(stock.Count((item("tea", 1) for _ in range(1000)), timeout=TIMEOUT).amount, 1000)

    @check("bidirectional streaming: each answer before the next request, then half-close")
    def _():
        turn = threading.Semaphore(1)

        def requests():
            for number in range(100):
                assert turn.acquire(timeout=TIMEOUT)
                yield item("tea", number)

        answers = []
        for level in stock.Trade(requests(), timeout=TIMEOUT):
            answers.append(level.amount)
            turn.release()
        equal(answers, list(range(1, 101)))

    for node, where in ((provider, "at its node"), (entry, "at another node")):

        @check(f"listed and described by reflection {where}")
        def _():
            from google.protobuf.descriptor_pool import DescriptorPool
            from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

            database = ProtoReflectionDescriptorDatabase(connect(node, certificates))
            assert "shop.Stock" in database.get_services(), database.get_services()
            service = DescriptorPool(database).FindServiceByName("shop.Stock")
            equal([method.name for method in service.methods], ["Get", "Watch", "Count", "Trade"])

    @check("grpc.health.v1 answers for it at another node")
    def _():
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service="shop.Stock"), timeout=TIMEOUT)
        equal(answer.status, health_pb2.HealthCheckResponse.SERVING)

    channel.close()


def load(entry, certificates):
    global failures
    stock = stock_pb2_grpc.StockStub(connect(entry, certificates))
    ended = threading.Event()
    answered, failed, lock = Counter(), [], threading.Lock()

    def work():
        while not ended.is_set():
            try:
                process = stock.Get(item("tea"), timeout=TIMEOUT).process
                with lock:
                    answered[process] += 1
            except grpc.RpcError as error:
                with lock:
                    failed.append(f"{error.code()}: {error.details()}")
            time.sleep(0.001)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    print("running", flush=True)
    sys.stdin.read()
    ended.set()
    for worker in workers:
        worker.join()
    told = ", ".join(f"{count} by {process}" for process, count in sorted(answered.items()))

    @check(f"drained and stopped under load without a failed call ({told})")
    def _():
        assert not failed, f"{len(failed)} failed, the first: {failed[0]}"
        assert len(answered) == 2 and min(answered.values()) > 10, answered


verb, *arguments = sys.argv[1:]
{"call": call, "load": load}[verb](*arguments)
sys.exit(1 if failures else 0)
