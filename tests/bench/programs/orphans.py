"""Makes orphans: `orphans.py COUNT GO RESULT`.

A child of its own answers 200 on PORT. Once the file GO is there, COUNT grandchildren are forked through short-lived
children, so that they are orphans; then all are let go at once. RESULT gets JSON: how long until the PID namespace was
back to what it had been, zombies counted, and how many zombies were left in the end. Run it in a PID namespace.
"""

import json
import os
import socket
import sys
import time

BATCH = 250
LIMIT_SECONDS = 180.0


def answer() -> None:
    """Serve as a healthy app does."""
    with socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")


def processes() -> list[str]:
    """Every process of the namespace, zombies included."""
    return [name for name in os.listdir("/proc") if name.isdigit()]


def zombies() -> int:
    """How many of them wait to be reaped."""
    count = 0
    for pid in processes():
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                count += file.read().rpartition(b")")[2].split()[0] == b"Z"
        except OSError:
            continue
    return count


def make(count: int, gate: tuple[int, int]) -> None:
    """Fork `count` orphans that wait at the gate."""
    for first in range(0, count, BATCH):
        parent = os.fork()
        if parent == 0:
            os.close(gate[1])
            for _ in range(min(BATCH, count - first)):
                if os.fork() == 0:
                    os.read(gate[0], 1)
                    os._exit(0)
            os._exit(0)
        os.waitpid(parent, 0)


def main() -> None:
    """See above."""
    count, go, result = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    if "PORT" in os.environ and os.fork() == 0:
        answer()
    while not os.path.exists(go):
        time.sleep(0.01)
    before = len(processes())
    gate = os.pipe()
    began = time.monotonic()
    make(count, gate)
    made = time.monotonic()
    most = len(processes()) - before
    os.close(gate[1])
    while len(processes()) > before and time.monotonic() < made + LIMIT_SECONDS:
        time.sleep(0.005)
    gone = time.monotonic()
    left = zombies()
    found = {"made": most, "forking": made - began, "gone": gone - made, "left": left, "released_at": made}
    with open(result + ".new", "w") as file:
        json.dump(found, file)
    os.rename(result + ".new", result)
    time.sleep(3600)


main()
