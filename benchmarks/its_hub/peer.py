"""The peer's side: its_hub's methods on a served model, run in the peer's own environment.

Reads one JSON job a line on standard input and writes one JSON result a line on standard output. Rewards and answers
come from a small service, so that both sides use the very same functions:

    {"method": "particle_filter", "n": 8, "prompt": "C3 5 8>24?", "item": 4}
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
import warnings
from typing import Any

from its_hub.api import AbstractOutcomeRewardModel, AbstractProcessRewardModel
from its_hub.core.algorithms.bon import BestOfN
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering
from its_hub.core.algorithms.self_consistency import SelfConsistency
from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel
from its_hub.core.lms.step_generation import StepGeneration
from its_hub.core.orchestrator import LMOrchestrator


def asked(url: str, body: dict[str, Any]) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.loads(reply.read())


class Steps(AbstractProcessRewardModel):
    """The shared step reward: a probability for each chain so far."""

    def __init__(self, service: str) -> None:
        self.service = service

    def score(self, prompt_or_messages: Any, steps: list[str]) -> list[float]:
        return asked(self.service + "/score", {"prompts": [str(prompt_or_messages)] * len(steps), "texts": steps})

    async def ascore(self, prompt_or_messages: Any, steps: list[str]) -> list[float]:
        return await asyncio.to_thread(self.score, prompt_or_messages, steps)


class Whole(AbstractOutcomeRewardModel):
    """The same reward of finished chains."""

    def __init__(self, service: str) -> None:
        self.service = service

    def score(self, messages: Any, **kwargs: Any) -> list[float]:
        prompts = [talk[0].content for talk in messages]
        return asked(self.service + "/score", {"prompts": prompts, "texts": [talk[-1].content for talk in messages]})

    async def ascore(self, messages: Any, orchestrator: Any = None, **kwargs: Any) -> list[float]:
        return await asyncio.to_thread(self.score, messages)


async def main(endpoint: str, service: str, model: str, settings: str) -> None:
    options = json.loads(settings)
    lm = OpenAICompatibleLanguageModel(
        endpoint,
        "none",
        model,
        temperature=options["temperature"],
        max_completion_tokens=options["max_tokens"],
        max_concurrency=options["concurrency"],
    )
    steps = StepGeneration(
        max_steps=options["max_steps"],
        step_token=options["stop"],
        stop_token=options["end"],
        temperature=options["temperature"],
        include_stop_str_in_output=True,
    )
    orchestrator = LMOrchestrator(max_concurrency=options["concurrency"])
    for line in sys.stdin:
        job = json.loads(line)

        def answer(text: str, item: int = job["item"]) -> str:
            return str(asked(service + "/answer", {"item": item, "text": text}))

        method = {
            "particle_filter": lambda: ParticleFiltering(steps, Steps(service)),
            "best_of_n": lambda: BestOfN(Whole(service), orchestrator),
            "self_consistency": lambda answer=answer: SelfConsistency(answer, orchestrator=orchestrator),
        }[job["method"]]()
        began = time.perf_counter()
        try:
            result = await method.ainfer(lm, job["prompt"], job["n"], return_response_only=False)
            usage = getattr(result, "usage", None)
            reported = None if usage is None else [usage.prompt_tokens, usage.completion_tokens]
            out = {"text": result.the_one["content"], "reported": reported}
        except Exception as error:  # the peer's failure is a result here
            out = {"text": None, "error": f"{type(error).__name__}: {error}", "reported": None}
        print(json.dumps({**out, "seconds": time.perf_counter() - began}), flush=True)
    await lm.close()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(main(*sys.argv[1:5]))
