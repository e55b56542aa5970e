"""Open-loop load over HTTP/1.1, in a process of its own: `python -m tests.load URL --rate 200`; `wrk` beside it."""
