"""A small app: answers 200 on PORT; writes to BENCH_TOLD when it is told to end, and ends at once.

Started with `python -I -S`, so that its own start costs as little as Python allows.
"""

import os
import signal
import socket
import time

told = os.open(os.environ.get("BENCH_TOLD", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def end(_number: int, _frame: object) -> None:
    """The moment the signal is here, in monotonic seconds, which all processes share."""
    os.write(told, f"{time.monotonic()!r}\n".encode())
    os._exit(0)


signal.signal(signal.SIGTERM, end)
with socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=128) as listener:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(1)
            try:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
            except OSError:
                pass
