"""A judge of VCGBench's answers on this machine's loopback interface."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer


class JudgeOnLoopback(BaseHTTPRequestHandler):
    """Marks by the aspect; refuses the first request as a busy server does, and can die after some."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        if self.server.victim is not None and len(self.server.asked) == self.server.kills_at:
            os.kill(self.server.victim.pid, signal.SIGKILL)
            return
        if len(self.server.asked) in self.server.busy:
            self.send_response(429)
            self.send_header("Retry-After", "0")
            self.end_headers()
            return
        if len(self.server.asked) > self.server.dies_after:
            self.send_response(401)
            self.end_headers()
            return
        system = body["messages"][0]["content"]
        said = (
            "I would say it is fine."
            if "theme and context" in system and not self.server.marks_context
            else f"```json\n{{'score': {4 if 'order of events' in system else 3}}}\n```"
        )
        answer = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@contextmanager
def loopback_judge(marks_context: bool = True) -> Iterator[HTTPServer]:
    """The server; `asked` lists what it was asked, `busy` the requests that it refuses once.

    Args:
        marks_context: else it gives that aspect no mark that can be read.
    """
    server = HTTPServer(("127.0.0.1", 0), JudgeOnLoopback)
    server.asked, server.busy, server.dies_after = [], {1}, 10**6
    server.victim, server.kills_at, server.marks_context = None, 3, marks_context
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def write_questions(folder, videos):
    """The official form of the question files, for the names of two videos."""
    folder.mkdir()
    generic = [{"Q": "What is shown?", "A": "A flower.", "video_name": video} for video in videos]
    (folder / "generic_qa.json").write_text(json.dumps(generic))
    temporal = [{"Q": "What comes first?", "A": "The wind.", "video_name": videos[0]}]
    (folder / "temporal_qa.json").write_text(json.dumps(temporal))
    consistency = [{"Q1": "What?", "Q2": "Which thing?", "A": "A flower.", "video_name": videos[0]}]
    (folder / "consistency_qa.json").write_text(json.dumps(consistency))
    return folder
