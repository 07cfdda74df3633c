"""A gRPC client of grpcio: calls test.Service at TARGET in every way there is and checks what comes back."""

import queue
import sys

import grpc

Code = grpc.StatusCode
channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_retries", 0)])


def method(path, kind="unary_unary"):
    return getattr(channel, kind)(path)


def refused(call, *arguments, **named):
    try:
        result = call(*arguments, **named)
        if hasattr(result, "__next__"):
            list(result)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


unary = method("/test.Service/Unary")
answer, call = unary.with_call(b"abc", metadata=(("x-meta", "m"), ("x-meta-bin", b"\0\xff")), timeout=10)
assert answer == b"cba", answer
assert dict(call.initial_metadata())["x-seen"] == "m", call.initial_metadata()
trailing = dict(call.trailing_metadata())
assert trailing["x-end"] == "here" and trailing["x-raw-bin"] == b"\0\1\xff", trailing
assert call.code() == Code.OK

# Messages of every size, in both directions.
for size in (0, 1, 5_000, 70_000, 1_000_000):
    assert len(unary(b"y" * size, timeout=20)) == size or size == 0
    assert len(unary(b"grow %d" % size, timeout=20)) == size

error = refused(unary, b"fail", timeout=10)
assert (error.code(), error.details()) == (Code.INVALID_ARGUMENT, "bad: größer"), error
assert dict(error.trailing_metadata())["x-why"] == "asked"

down = method("/test.Service/Down", "unary_stream")
assert [len(each) for each in down(b"200", timeout=20)] == [100 * len(str(n)) for n in range(200)]

up = method("/test.Service/Up", "stream_unary")
assert up((b"z" * 1000 for _ in range(500)), timeout=20) == b"500000"

# Each answer comes before the next request is sent.
both = method("/test.Service/Both", "stream_stream")
asked = queue.Queue()
answers = both(iter(asked.get, None), timeout=20)
for number in range(50):
    asked.put(b"%d" % number)
    assert next(answers) == b"echo %d" % number
asked.put(None)
assert list(answers) == []

# A deadline, and what the server hears of it.
error = refused(unary, b"slow", timeout=0.3)
assert error.code() == Code.DEADLINE_EXCEEDED, error
assert unary(b"cancelled?", timeout=20) == b"yes"

# A call that is taken back, which the server hears of too.
stream = down(b"endless", timeout=20)
assert next(stream) == b"0"
stream.cancel()
assert unary(b"cancelled?", timeout=20) == b"yes"

# Matching by metadata; what nothing serves, what leads nowhere, and what cannot be reached.
_, call = unary.with_call(b"x", metadata=(("x-canary", "yes"),), timeout=10)
assert dict(call.initial_metadata())["x-server"] == "canary", call.initial_metadata()
_, call = unary.with_call(b"x", timeout=10)
assert dict(call.initial_metadata())["x-server"] == "main", call.initial_metadata()
for path, code in (
    ("/test.Unknown/Unary", Code.UNIMPLEMENTED),
    ("/test.Service/Missing", Code.UNIMPLEMENTED),
    ("/test.Nowhere/Unary", Code.UNAVAILABLE),
    ("/test.Down/Unary", Code.UNAVAILABLE),
):
    error = refused(method(path), b"x", timeout=10)
    assert error.code() == code, (path, error)
print("done")
