"""A gRPC client of grpcio: calls of TARGET stay with the server that the first one came to, by cookie and by field."""

import sys

import grpc


def call(metadata):
    # A channel of its own, so that every call comes on a connection of its own.
    with grpc.insecure_channel(sys.argv[1], options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        _, done = channel.unary_unary("/test.Service/Unary").with_call(b"abc", metadata=metadata, timeout=10)
        return dict(done.initial_metadata())


for by in ("cookie", "field"):
    servers = set()
    for _ in range(8):
        first = call((("x-by", by),))
        servers.add(first["x-server"])
        if by == "cookie":
            token = ("cookie", first["set-cookie"].split(";")[0])
        else:
            token = ("x-session", first["x-session"])
        for _ in range(5):
            again = call((("x-by", by), token))
            assert again["x-server"] == first["x-server"], (by, first, again)
            assert "set-cookie" not in again and "x-session" not in again, again
    assert len(servers) > 1, servers
print("done")
