"""A small faulty chat server for tests: each prompt gets the next of its scripted answers."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Faulty:
    """`script(body)` gives a list of answers to a prompt, played in order, the last one again and again.

    An answer is a text (a completion that says so, `slow` after a moment), an int (a bare status), (status, headers),
    `hang` (too late, and no completion), or bytes (200 with that body).
    """

    def __init__(self, script):
        self.script, self.bodies, self.headers = script, [], []
        self.played, self.lock = Counter(), threading.Lock()
        self.under_way = self.most = 0
        faulty = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                with faulty.lock:
                    body = json.loads(raw)
                    faulty.bodies.append(body)
                    faulty.headers.append(dict(self.headers))
                    answers = faulty.script(body)
                    answer = answers[min(faulty.played[raw], len(answers) - 1)]
                    faulty.played[raw] += 1
                    faulty.under_way += 1
                    faulty.most = max(faulty.most, faulty.under_way)
                self.answer(answer)

            def answer(self, answer):
                status, headers, data = 200, {}, b"oops"
                time.sleep({"hang": 1.0, "slow": 0.2}.get(answer, 0.0) if isinstance(answer, str) else 0.0)
                with faulty.lock:
                    faulty.under_way -= 1
                if answer == "hang":
                    pass
                elif isinstance(answer, int):
                    status = answer
                elif isinstance(answer, tuple):
                    status, headers = answer
                elif isinstance(answer, bytes):
                    data = answer
                else:
                    data = json.dumps({"choices": [{"message": {"role": "assistant", "content": answer}}]}).encode()
                try:
                    self.send_response(status)
                    for name, value in {**headers, "Content-Length": len(data)}.items():
                        self.send_header(name, str(value))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # the client did not wait
                    pass

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    @property
    def n(self):
        return len(self.bodies)

    def stop(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
