"""A small faulty server for tests, of both APIs: each prompt gets the next of its scripted answers."""

import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Torn(str):
    """An answer whose stream breaks off."""


class Faulty:
    """`script(body)` gives a list of answers to a prompt, played in order, the last one again and again.

    An answer is a text (a completion that says so, `slow...` after a moment), an int (a bare status), (status, headers)
    or (status, headers, body), `hang` (too late, and no completion), Torn (a stream that breaks off behind the text),
    or bytes (200 with that body). What asks for a stream gets the text word by word; `wrote` counts the words that
    somebody waited for.
    """

    def __init__(self, script):
        self.script, self.bodies, self.headers = script, [], []
        self.played, self.lock = Counter(), threading.Lock()
        self.under_way = self.most = self.wrote = 0
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
                self.answer(answer, body)

            def stream(self, answer, chat):
                # without a length, and raw characters: the stream ends with the connection, lines with line feeds
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "text/event-stream")
                    self.end_headers()
                    for word in re.findall(r"\s*\S+|\s+$", answer):
                        self.event({"delta": {"content": word}} if chat else {"text": word})
                        faulty.wrote += 1
                        time.sleep(0.002)
                    if not isinstance(answer, Torn):
                        self.event({**({"delta": {}} if chat else {"text": ""}), "finish_reason": "stop"})
                except OSError:  # the client has what it wants
                    pass

            def event(self, choice):
                data = json.dumps({"choices": [{"index": 0, **choice}]}, ensure_ascii=False)
                self.wfile.write(f": note\n\ndata: {data}\n\n".encode())
                self.wfile.flush()

            def answer(self, answer, asked):
                status, headers, data = 200, {}, b"oops"
                chat = self.path.endswith("/chat/completions")
                if isinstance(answer, str):
                    time.sleep(1.0 if answer == "hang" else 0.2 if answer.startswith("slow") else 0.0)
                with faulty.lock:
                    faulty.under_way -= 1
                if answer == "hang":
                    pass
                elif isinstance(answer, int):
                    status = answer
                elif isinstance(answer, tuple):
                    status, headers, data = *answer, *[data][len(answer) - 2 :]
                elif isinstance(answer, bytes):
                    data = answer
                elif asked.get("stream"):
                    return self.stream(answer, chat)
                else:
                    own = {"message": {"role": "assistant", "content": answer}} if chat else {"text": answer}
                    data = json.dumps({"choices": [{**own, "finish_reason": "stop"}]}).encode()
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
