"""Methods and rewards by the names that text uses: `best_of_n(n=16, reward=chain_steps)`, read and never evaluated."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from anystep import search
from anystep.errors import UsageError
from anystep.population import Decision
from anystep.procedure import Method
from anystep.process import Reward, reward
from anystep.search import decide
from anystep.tasks.task import Task

HUGE = 10**6  # no option of a method that is written as text is this large
MOST_SAMPLES = 64  # verdicts that a judge in a text samples of one candidate

Question = str | Task | Sequence[dict[str, Any]]
MakeReward = Callable[..., Reward]  # of the task, and of the options that its name was written with
Asks = Callable[[str | None], Any]  # the model of a name, None for the run's own: who a judge is

_METHODS: dict[str, Callable[..., Method]] = {
    "sample": search.sample,
    "best_of_n": search.best_of_n,
    "best_of_majority": search.best_of_majority,
    "repeated_sampling": search.repeated_sampling,
    "capability_aware_best_of_n": search.capability_aware_best_of_n,
    "self_consistency": search.self_consistency,
    "adaptive_self_consistency": search.adaptive_self_consistency,
    "complexity_vote": search.complexity_vote,
    "deepconf": search.deepconf,
    "deepconf_online": search.deepconf_online,
    "first_finish": search.first_finish,
    "perplexity_consistency": search.perplexity_consistency,
    "particle_filter": search.particle_filter,
    "beam": search.beam,
    "astar": search.astar,
    "astar_decode": search.astar_decode,
    "mcts": search.mcts,
    "dvts": search.dvts,
    "parallel_tempering": search.parallel_tempering,
    "particle_gibbs": search.particle_gibbs,
    "particle_islands": search.particle_islands,
    "rebase": search.rebase,
    "step_beam": search.step_beam,
    "soft_value_decoding": search.soft_value_decoding,
    "tree_of_thoughts": search.tree_of_thoughts,
    "ab_mcts": search.ab_mcts,
    "consistency_check_loop": search.consistency_check_loop,
}


def rewards() -> dict[str, MakeReward]:
    """Rewards by the name a method's text uses, each made for a task, with options where it takes some."""
    return dict(_REWARDS)


def _chain_steps(task: Question, aggregate: Any = "product") -> Reward:
    from anystep import verify

    return verify.chain_steps(aggregate=aggregate)


def _collaborative_cot_pot(task: Question, rest: float = 0.5) -> Reward:
    from anystep import verify

    return verify.collaborative_cot_pot(rest=rest)


def _consistency(task: Question) -> Reward:
    from anystep import verify

    return verify.consistency(_question(task))


def _equations(task: Question) -> Reward:
    from anystep import verify

    return verify.equations(_question(task))


def _question(task: Question) -> str:
    if isinstance(task, Task):
        return str(task.meta.get("question", task.prompt))
    return task if isinstance(task, str) else str(task[-1].get("content", ""))


def _judge(
    task: Question,
    asks: Asks,
    model: str | None = None,
    rubric: str | None = None,
    samples: int = 0,
    partial: bool = False,
) -> Reward:
    from anystep import verify

    if isinstance(samples, int) and samples > MOST_SAMPLES:
        raise UsageError(f"judge(samples={samples}) is out of reach; give at most {MOST_SAMPLES}.")
    own = {} if rubric is None else {"rubric": rubric}
    return verify.judge_for(task, asks(model), samples=samples, partial=partial, **own)


def _natural_program(task: Question, asks: Asks, model: str | None = None, aggregate: Any = "product") -> Reward:
    from anystep import verify

    return verify.natural_program(asks(model), aggregate=aggregate)


def _oracle(task: Question) -> Reward:
    from anystep import verify

    if not isinstance(task, Task):
        raise UsageError("oracle checks a task's known answer: give --task NAME, or a reward such as equations.")
    return verify.oracle(task)


def _self_evaluation(task: Question, asks: Asks, about: Any = "right") -> Reward:
    from anystep import verify

    return verify.self_evaluation(asks(None), about)


def _self_evaluation_token(task: Question, asks: Asks) -> Reward:
    from anystep import verify

    return verify.self_evaluation_token(asks(None))


def _steps(task: Question, separator: str = "\n", end: str | None = None) -> Reward:
    from anystep import verify

    return verify.steps(separator, end)


def _standing_steps(task: Question, threshold: float = 0.5) -> Reward:
    from anystep import verify

    return verify.standing_steps(threshold)


def _step_arithmetic(task: Question) -> Reward:
    from anystep import verify

    return verify.step_arithmetic()


def _tests(task: Question, all: bool = False) -> Reward:
    from anystep import verify

    if not isinstance(task, Task):
        raise UsageError("tests runs the examples of a programming problem: give --task programs or humaneval.")
    return verify.tests(task, all=all)


def _token_confidence(task: Question, asks: Asks, read_as: Any = "lowest", window: int = 16, top: int = 20) -> Reward:
    from anystep import verify

    return verify.token_confidence(asks(None), read_as, window, top)


def _uncertainty_head(task: Question, asks: Asks, aggregate: Any = "product") -> Reward:
    from anystep import verify

    return verify.uncertainty_head(asks(None), aggregate=aggregate)


_REWARDS: dict[str, MakeReward] = {
    "chain_steps": _chain_steps,
    "collaborative_cot_pot": _collaborative_cot_pot,
    "consistency": _consistency,
    "equations": _equations,
    "judge": _judge,
    "natural_program": _natural_program,
    "oracle": _oracle,
    "self_evaluation": _self_evaluation,
    "self_evaluation_token": _self_evaluation_token,
    "steps": _steps,
    "standing_steps": _standing_steps,
    "step_arithmetic": _step_arithmetic,
    "tests": _tests,
    "token_confidence": _token_confidence,
    "uncertainty_head": _uncertainty_head,
}


def methods() -> dict[str, Callable[..., Method]]:
    """Methods by the name that text uses, beside "greedy"."""
    return dict(_METHODS)


@dataclass(frozen=True)
class Choice:
    """A method, and whether it wants the model's greedy process."""

    method: Method
    greedy: bool = False


def named_method(
    text: str,
    task: Question,
    methods: Mapping[str, Callable[..., Method]] | None = None,
    rewards: Mapping[str, MakeReward] | None = None,
    asks: Asks | None = None,
) -> Choice:
    """A method from its call as text, `best_of_n(n=16, reward=chain_steps)`; "greedy" is one sample at temperature 0.

    Only names, numbers and text are read, nothing is evaluated. A reward's name stands for that reward made for
    `task`, its options in brackets behind it (`reward=chain_steps(aggregate="min")`); where a potential is asked for,
    its log-odds. `decide=majority` changes the decision. methods, rewards: the
    caller's own by name, beside the known ones. asks: the model that a name in a reward's options stands for, and the
    run's own for None; without it the method is read, but its rewards that ask a model cannot score.
    """
    if text.strip() == "greedy":
        return Choice(search.sample(n=1), greedy=True)
    name, arguments = _parsed(text)
    known = {**_METHODS, **(methods or {})}
    if name not in known:
        near = difflib.get_close_matches(name, [*known, "greedy"], n=1)
        raise UsageError(f"no method {name!r}; {_meant(near)}the methods are greedy, {', '.join(known)}.")
    decision = arguments.pop("decide", None)
    make = known[name]
    for option, value in arguments.items():
        if isinstance(value, _Named):
            arguments[option] = _reward(value, option, task, rewards or {}, asks)
    method = make(**arguments)
    return Choice(method if decision is None else method.deciding(_decision(decision)))


@dataclass(frozen=True)
class _Named:
    """A bare name in a method's text, or a name with options of its own."""

    name: str
    options: dict[str, Any]


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    shape = "write it like best_of_n(n=16, reward=chain_steps)"
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UsageError(f"cannot read the method {text[:80]!r}; {shape}.") from None
    named = _named(node, text, shape)
    return named.name, named.options


def _named(node: ast.expr, text: str, shape: str, depth: int = 0) -> _Named:
    """A name, with the options that it is called with; those may be names with options again, one level down."""
    if isinstance(node, ast.Name):
        return _Named(node.id, {})
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)) or depth > 1:
        raise UsageError(f"{text[:80]!r} is not a call; {shape}.")
    name = node.func.id
    if node.args or any(k.arg is None for k in node.keywords):
        raise UsageError(f"{name} takes its options by name; {shape}.")
    options: dict[str, Any] = {}
    for keyword in node.keywords:
        option, value = str(keyword.arg), keyword.value
        if option in options:
            raise UsageError(f"{name}({option}=...) is given twice; give it once.")
        if isinstance(value, (ast.Name, ast.Call)):
            options[option] = _named(value, text, shape, depth + 1)
        else:
            options[option] = _literal(value, f"{name}({option}=...)", shape)
    return _Named(name, options)


def _literal(node: ast.expr, what: str, shape: str) -> Any:
    try:
        found = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise UsageError(f"{what} must be a number, a text or a name; {shape}.") from None
    if isinstance(found, int) and abs(found) >= HUGE:
        raise UsageError(f"{what} is out of reach; give a number below {HUGE:,}.")
    return found


def _reward(named: _Named, option: str, task: Question, own: Mapping[str, MakeReward], asks: Asks | None) -> Reward:
    known = {**rewards(), **own}
    make = known.get(named.name)
    if make is None:
        near = difflib.get_close_matches(named.name, known, n=1)
        raise UsageError(f"no reward {named.name!r}; {_meant(near)}the rewards are {', '.join(known)}.")
    takes = list(inspect.signature(make).parameters)[1:]
    can = [name for name in takes if name != "asks"]
    for given, value in named.options.items():
        if given not in can:
            told = f"it takes {', '.join(can)}" if can else f"write {option}={named.name}"
            raise UsageError(f"{named.name} has no option {given!r}; {told}.")
        if isinstance(value, (_Named, list, tuple, dict, set)):
            raise UsageError(f'{named.name}({given}=...) is a number or a text in quotes, such as {given}="...".')
    if "asks" not in takes:
        made = make(task, **named.options)
    elif asks is None:
        made = reward(partial(_asks_nobody, named.name), named.name)
    else:
        made = make(task, asks=asks, **named.options)
    return made.log_odds() if option in ("potential", "heuristic") else made


def _asks_nobody(name: str, states: Any) -> Any:
    raise UsageError(f"{name} was read without a model to ask; call named_method(..., asks=engine_for).")


def decisions() -> dict[str, Decision | Callable[..., Decision]]:
    """Decisions, and what makes them from options, by the name that a method's text uses."""
    return dict(_DECISIONS)


_DECISIONS: dict[str, Decision | Callable[..., Decision]] = {
    "best_reward": decide.best_reward,
    "majority": decide.majority,
    "weighted_majority": decide.weighted_majority,
    "reward_majority": decide.reward_majority,
    "majority_above": decide.majority_above,
    "perplexity_consistency": decide.perplexity_consistency,
    "best_of_majority": decide.best_of_majority,
    "complex_majority": decide.complex_majority,
    "every_answer": decide.every_answer,
    "confidence_weighted": decide.confidence_weighted,
    "abstain": decide.abstain,
}


def _decision(named: Any) -> Decision:
    known = _DECISIONS.get(named.name) if isinstance(named, _Named) else None
    if known is None:
        raise UsageError(f"no decision {_shown(named)}; the decisions are {', '.join(_DECISIONS)}.")
    if isinstance(known, Decision):
        if named.options:
            raise UsageError(f"{named.name} has no options; write decide={named.name}.")
        return known
    takes = inspect.signature(known).parameters
    options = {k: _decision(v) if isinstance(v, _Named) else v for k, v in named.options.items()}
    missing = [name for name, p in takes.items() if p.default is p.empty and name not in options]
    if missing or not set(options) <= set(takes):
        shown = ", ".join(f"{n}=..." for n in takes)
        raise UsageError(f"{named.name} takes {', '.join(takes)}; write decide={named.name}({shown}).")
    return known(**options)


def _shown(value: Any) -> str:
    return repr(value.name if isinstance(value, _Named) else value)


def _meant(near: list[str]) -> str:
    return f"did you mean {near[0]}? " if near else ""
