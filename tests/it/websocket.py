"""WebSocket peers of the `websockets` library.

`serve ADDRESS` binds, prints its port and echoes messages. `talk URL` says things, waits for a line on its standard input,
and says more."""

import sys
import threading

import websockets
from websockets.sync.client import connect
from websockets.sync.server import serve


def echo(connection):
    for message in connection:
        if message == "bye":
            connection.close(4001, "asked")
            return
        connection.send(message)


def talk(url):
    with connect(url, open_timeout=10, close_timeout=10, max_size=None, subprotocols=["x", "chat"]) as connection:
        assert connection.subprotocol == "chat", connection.subprotocol
        for message in ("hello", "größer", b"\0\1\2", "x" * 70_000, b"y" * 1_000_000):
            connection.send(message)
            assert connection.recv(timeout=20) == message
        assert connection.ping().wait(10)
        print("talking", flush=True)
        sys.stdin.readline()
        connection.send("again")
        assert connection.recv(timeout=20) == "again"
        connection.send("bye")
        try:
            connection.recv(timeout=20)
        except websockets.exceptions.ConnectionClosedError as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "asked"), closed
        else:
            raise AssertionError("not closed")
    print("done", flush=True)


if sys.argv[1] == "serve":
    choose = lambda connection, offered: "chat" if "chat" in offered else None
    with serve(echo, sys.argv[2], 0, max_size=None, subprotocols=["chat"], select_subprotocol=choose) as server:
        print(server.socket.getsockname()[1], flush=True)
        threading.Thread(target=server.serve_forever).run()
else:
    talk(sys.argv[2])
