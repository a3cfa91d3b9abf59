"""What both sides share: the step reward and the way an answer is read, as one small service on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from anystep import verify
from anystep.ledger import Ledger, Limit
from anystep.tasks.chains import CHAIN_END
from anystep.tasks.task import Task


@dataclass(frozen=True)
class Texts:
    """Chains as a reward reads them."""

    asked: tuple[str, ...]
    said: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.said)

    def prompts(self) -> tuple[str, ...]:
        return self.asked

    def texts(self) -> tuple[str, ...]:
        return self.said


def ended(text: str) -> str:
    """A chain with its full stop: the peer takes the stop token off a finished chain, and keeps a step's line end."""
    return text if not text or text.endswith(("\n", CHAIN_END)) else text + CHAIN_END


class Service:
    """POST /score {"prompts", "texts"} -> probabilities; POST /answer {"item", "text"} -> the answer read from it."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks, self.reward = tuple(tasks), verify.chain_steps()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                data = json.dumps(service.reply(self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def reply(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/score":
            texts = Texts(tuple(body["prompts"]), tuple(ended(text) for text in body["texts"]))
            scored = self.reward(texts, Limit(Ledger(), "reward"))
            return scored.values.tolist()
        return self.tasks[body["item"]].extract(ended(body["text"]))

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()
