"""A gRPC service in Python that knows nothing of nodes: usage stock_service.py PORT NAME. Part of scripts/interop.sh."""

import signal
import sys
import threading
from concurrent import futures

import grpc
import stock_pb2
import stock_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

port, name = sys.argv[1:]


class Stock(stock_pb2_grpc.StockServicer):
    def level(self, item, amount, context):
        metadata = dict(context.invocation_metadata())
        assert "authorization" not in metadata and "p2p-hop" not in metadata, metadata
        return stock_pb2.Level(name=item, amount=amount, process=name, caller=metadata.get("p2p-principal", ""))

    def Get(self, request, context):
        if not request.name:
            context.set_trailing_metadata([("x-stock", "sent")])
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "which item?")
        return self.level(request.name, 7, context)

    def Watch(self, request, context):
        for amount in range(request.amount):
            yield self.level(request.name, amount, context)

    def Count(self, requests, context):
        return self.level("all", sum(item.amount for item in requests), context)

    def Trade(self, requests, context):
        for item in requests:
            yield self.level(item.name, item.amount + 1, context)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
stock_pb2_grpc.add_StockServicer_to_server(Stock(), server)
checks = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(checks, server)
checks.set("shop.Stock", health_pb2.HealthCheckResponse.SERVING)
service_name = stock_pb2.DESCRIPTOR.services_by_name["Stock"].full_name
reflection.enable_server_reflection([service_name, reflection.SERVICE_NAME], server)
assert server.add_insecure_port(f"127.0.0.1:{port}") == int(port)
server.start()
print("ready", flush=True)

stop = threading.Event()
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: stop.set())
stop.wait()
server.stop(1).wait()
