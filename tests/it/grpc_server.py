"""A gRPC server of grpcio: binds ADDRESS, prints its port, and serves test.Service until it is ended.

Messages are bytes; the name of the server and what it has seen of cancelled calls are in the answers."""

import sys
import threading
import time
from concurrent import futures

import grpc

address, name = sys.argv[1], sys.argv[2]
cancelled = threading.Semaphore(0)


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-seen", metadata.get("x-meta", "none")), ("x-server", name)))
    if request == b"fail":
        context.set_trailing_metadata((("x-why", "asked"),))
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad: größer")
    if request == b"slow":
        context.add_callback(cancelled.release)
        while context.is_active():
            time.sleep(0.01)
        return b""
    if request == b"cancelled?":
        return b"yes" if cancelled.acquire(timeout=10) else b"no"
    if request.startswith(b"grow "):
        return b"x" * int(request[5:])
    context.set_trailing_metadata((("x-end", "here"), ("x-raw-bin", b"\0\1\xff")))
    return request[::-1]


def down(request, context):
    if request == b"endless":
        context.add_callback(cancelled.release)
        number = 0
        while context.is_active():
            yield str(number).encode()
            number += 1
            time.sleep(0.01)
        return
    for number in range(int(request)):
        yield str(number).encode() * 100


def up(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def both(requests, context):
    for request in requests:
        yield b"echo " + request


handlers = grpc.method_handlers_generic_handler(
    "test.Service",
    {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    },
)
server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((handlers,))
port = server.add_insecure_port(address + ":0")
server.start()
print(port, flush=True)
server.wait_for_termination()
