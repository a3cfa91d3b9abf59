"""What sharing passes brings a server: `python benchmarks/serve.py chainlm-2m`.

The same requests from 1, 4, 16 and 64 clients at once, each a sample with a seed of its own. One line a number of
clients: tokens a second of wall clock and of CPU, passes of the model, the slowest tenth's time to an answer, and
whether every answer equals the one that came when it was alone.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

import httpx
import torch

from anystep import tasks
from anystep.language import load
from anystep.language.engine.engine import Engine
from anystep.serve import running

REQUESTS, LONGEST = 64, 64


async def asked(url: str, clients: int, prompts: list[str]) -> tuple[list[str], list[float], int]:
    """Texts, seconds each, and all generated tokens of one round."""
    turn = asyncio.Semaphore(clients)
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=clients)) as client:

        async def one(seed: int, prompt: str) -> tuple[str, float, int]:
            async with turn:
                began = time.perf_counter()
                body = {"model": "served", "prompt": prompt, "seed": seed, "max_tokens": LONGEST}
                found = (await client.post(f"{url}/completions", json=body)).raise_for_status().json()
                took = time.perf_counter() - began
                return found["choices"][0]["text"], took, found["usage"]["completion_tokens"]

        told = await asyncio.gather(*(one(i, prompt) for i, prompt in enumerate(prompts)))
    texts, seconds, tokens = zip(*told, strict=True)
    return list(texts), list(seconds), sum(tokens)


def main(name: str) -> None:
    torch.set_num_threads(1)
    engine: Engine = load(name)
    prompts = [str(task.prompt) for task in tasks.load("chains", REQUESTS)]
    alone: list[str] = []
    with running({"served": engine}) as url:
        asyncio.run(asked(url, 1, prompts[:4]))
        for clients in (1, 4, 16, 64):
            engine.cache.trim(0)
            passes, wall, cpu = engine.counters.passes, time.perf_counter(), time.process_time()
            texts, seconds, tokens = asyncio.run(asked(url, clients, prompts))
            wall, cpu, passes = time.perf_counter() - wall, time.process_time() - cpu, engine.counters.passes - passes
            alone = alone or texts
            same = sum(a == b for a, b in zip(alone, texts, strict=True))
            slow = statistics.quantiles(seconds, n=10)[-1]
            speed = (
                f"{tokens / wall:.0f} tokens/s, {tokens / cpu:.0f} a CPU second, {passes} passes for {tokens} tokens"
            )
            print(f"{clients:3} clients: {speed}, p90 {slow:.2f} s, {same} of {len(texts)} the same", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "chainlm-2m")
