"""Small apps for tests, each a program of a few lines; `write_app` puts one into a folder."""

from __future__ import annotations

from pathlib import Path

SERVER = """
import http.server, os, signal, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if os.path.exists("hang"):
            time.sleep(3600)
        status = 404 if self.path == "/api/health" and os.path.exists("no-health-path") else 200
        body = f"generation {os.environ['SUPERVISOR_GENERATION']} pid {os.getpid()}".encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

for name in ("SIGUSR1", "SIGUSR2", "SIGWINCH"):
    signal.signal(getattr(signal, name), lambda number, frame: print("got", signal.Signals(number).name, flush=True))
if os.path.exists("crash"):
    print("cannot work: crash was asked for", flush=True)
    sys.exit(int(open("crash").read() or 1))
print("listening", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""


def write_app(folder: Path, text: str = SERVER) -> Path:
    """The folder with `app.py` in it."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    (folder / "app.py").write_text(text)
    return folder
