"""Our engine against llama.cpp on the same GGUF file: `python benchmarks/against_llama_cpp.py`.

llama.cpp runs from the wheel `xllamacpp`, as its own server in a process of its own, called in that process. It gets
its best: as many slots as rows, one unified cache, forks as completions of one request (its server computes the prompt
once and shares it), each flash attention setting that is asked for, no logging, and as many threads as our engine. Its
process is timed as ours is, by its CPU clock and the wall's; what its own timings say stands in the JSON.

The wheel is built for AVX2: what `get_system_info` says is printed, since a build for this very processor may be
faster.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import paired

MODEL = "smollm2-135m"
FLASH = {"auto": -1, "off": 0, "on": 1}  # as llama_flash_attn_type counts


class Peer:
    """A llama.cpp server in a child process, made anew when a case needs other slots or another context."""

    def __init__(self, model: Path, flash: str, threads: int, unified: bool) -> None:
        self.settings = {"model": str(model), "flash": FLASH[flash], "threads": threads, "unified": unified}
        self.made: tuple[int, int] = (0, 0)
        self.child: subprocess.Popen[str] | None = None
        self.told: list[dict[str, Any]] = []
        self.info = ""

    def side(self, encode: Any) -> paired.Side:
        def run(prompts: paired.Prompts, new: int) -> paired.Taken:
            forks = len(set(prompts)) == 1
            own = (new + 8) * len(prompts)
            context = own + sum(len(p) for p in (prompts[:1] if forks else prompts))
            if not self.settings["unified"]:
                context = len(prompts) * (new + 8 + max(map(len, prompts)))
            if self.made != (len(prompts), context):
                self.start(len(prompts), context)
            job = {"prompt": prompts[0] if forks else prompts, "n": len(prompts) if forks else 1, "new": new}
            reply = self.ask(job)
            self.told.append(reply["timings"])
            return paired.Taken(*reply["first"], *reply["rest"], tuple(tuple(encode(t)) for t in reply["texts"]))

        return run

    def start(self, slots: int, context: int) -> None:
        self.stop()
        command = [sys.executable, __file__, "--serve", json.dumps({**self.settings, "slots": slots, "ctx": context})]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.made = slots, context
        self.info = self.ask({"prompt": [1, 2, 3, 4], "n": 1, "new": 2})["info"]  # a first call sets things up

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self.child is not None and self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.write(json.dumps(job) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            raise SystemExit(f"the llama.cpp process ended at {job['n']} completions of {job['new']} tokens")
        return json.loads(line)

    def stop(self) -> None:
        if self.child is not None and self.child.stdin is not None:
            self.child.stdin.close()
            self.child.wait()


def serve(settings: dict[str, Any]) -> None:
    """The child: one JSON job a line in, one JSON result a line out."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.n_parallel, params.n_ctx, params.kv_unified = settings["slots"], settings["ctx"], settings["unified"]
    params.flash_attn_type = xllamacpp.llama_flash_attn_type(settings["flash"])
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.n_threads_http, params.verbosity, params.cache_ram_mib = 1, 0, 0
    server = xllamacpp.Server(params)
    for line in sys.stdin:
        print(json.dumps(answered(server, json.loads(line)) | {"info": xllamacpp.get_system_info()}), flush=True)
    os._exit(0)  # the server's own end waits for its slots; nothing is left to save


def answered(server: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Streamed requests, one for each prompt, so that the first tokens can be timed apart."""
    several = not isinstance(job["prompt"][0], int)
    rows = len(job["prompt"]) if several else job["n"]
    texts: dict[int, str] = {}
    timings: dict[str, Any] = {}
    marks = [(time.process_time(), time.perf_counter())]

    def send(prompt: list[int], first: int) -> None:
        def watch(event: Any) -> None:
            for part in event if isinstance(event, list) else [event]:
                for choice in part.get("choices", ()):
                    at = first + choice["index"]
                    texts[at] = texts.get(at, "") + (choice.get("text") or "")
                timings.update(part.get("timings") or part.get("error") or {})
            if len(texts) == rows and len(marks) == 1:
                marks.append((time.process_time(), time.perf_counter()))

        body = {"prompt": prompt, "n": job["n"], "n_predict": job["new"], "temperature": 0, "ignore_eos": True}
        server.handle_completions({**body, "cache_prompt": False, "stream": True}, watch)

    if several:
        with ThreadPoolExecutor(rows) as pool:
            list(pool.map(send, job["prompt"], range(rows)))
    else:
        send(job["prompt"], 0)
    marks.append((time.process_time(), time.perf_counter()))
    if len(texts) != rows:
        raise SystemExit(f"llama.cpp answered {len(texts)} of {rows}: {timings}")
    spans = [[b - a for a, b in zip(one, other, strict=True)] for one, other in zip(marks, marks[1:], strict=False)]
    return {"first": spans[0], "rest": spans[-1], "texts": [texts[i] for i in sorted(texts)], "timings": timings}


def main() -> None:
    parser = paired.option_parser("Compare our engine with llama.cpp (xllamacpp) on SmolLM2-135M in Q4_1.")
    parser.add_argument("--gguf", type=Path, help="the file; by default fetched once and kept in the cache folder")
    parser.add_argument("--flash", default="on,off", help="its flash attention: on, off, auto, with commas")
    parser.add_argument("--split", action="store_true", help="a cache for each slot, none unified")
    parser.add_argument("--serve", help="(used by itself)")
    options = parser.parse_args()
    if options.serve:
        return serve(json.loads(options.serve))
    import torch

    from anystep.language import load

    torch.set_num_threads(options.threads)
    sides: dict[str, paired.Side] = {}
    for form in options.weights.split(","):
        engine = load(MODEL, weights=form)
        sides[f"anystep {form}"] = paired.ours(engine)
        sides[f"anystep {form}"]([(1, 2, 3, 4)], 3)
    path = options.gguf or paired.packaged_gguf()
    peers = [Peer(path, flash, options.threads, not options.split) for flash in options.flash.split(",")]
    for flash, peer in zip(options.flash.split(","), peers, strict=True):
        sides[f"llama.cpp flash {flash}"] = peer.side(engine.tokenizer.encode)
    cases = paired.cases_of(options)
    found = paired.took(sides, cases, paired.text_tokens(engine), options.repeats)
    for peer in peers:
        peer.stop()
    print(f"llama.cpp: {peers[0].info}\n{path.name} {paired.digest(path)}")
    least = paired.limits(engine, cases)
    print(paired.table(found, least, list(sides), next(iter(sides)), options.new - 1))
    if options.json:
        more = {
            "limits": {str(c): s for c, s in least.items()},
            "llama.cpp": peers[0].info,
            "its timings": [peer.told for peer in peers],
        }
        options.json.write_text(paired.record(found, options, **more), encoding="utf-8")


if __name__ == "__main__":
    main()
