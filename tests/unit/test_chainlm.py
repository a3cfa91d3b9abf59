"""The recipes at a tiny token budget, their checkpoints, and the judge's view of a chain."""

import json
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import pytest
import torch

from anystep.errors import ModelError, UsageError
from anystep.language.engine.llama import Llama
from anystep.language.train import chainlm, reward
from anystep.language.train.chainlm import Recipe, shape
from anystep.language.train.checkpoint import WEIGHTS, Card, load, save
from anystep.language.train.grove import Grove, label, plant
from anystep.language.train.reward import RewardRecipe, StepReward
from anystep.language.train.sampler import sample, sample_many
from anystep.tasks.chains import Alphabet, Verdict, chains

TINY = Recipe(size="1m", tokens=4_000, batch=24, micro=2, compile=False)


def small(seed: int = 0) -> Llama:
    torch.manual_seed(seed)
    return Llama(shape("1m")).eval()


@pytest.mark.parametrize(("size", "low", "high"), [("1m", 0.9e6, 1.2e6), ("2m", 1.9e6, 2.5e6), ("3m", 2.7e6, 3.0e6)])
def test_sizes_are_what_they_are_called(size: str, low: float, high: float) -> None:
    parameters = sum(p.numel() for p in Llama(shape(size)).parameters())
    assert low <= parameters <= high
    assert 2 * parameters < 8e6


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(UsageError, match="sizes are 300k, 1m, 2m, 3m"):
        shape("9m")


def test_training_learns_counts_and_repeats() -> None:
    losses: list[float] = []
    before = torch.random.get_rng_state()
    model, cost = chainlm.train(TINY, lambda _, tokens, loss: losses.append(loss))
    again, _ = chainlm.train(TINY)
    other, _ = chainlm.train(Recipe(**asdict(TINY) | {"seed": 1}))
    assert losses[-1] < losses[0]
    assert torch.equal(before, torch.random.get_rng_state())
    assert cost.tokens >= TINY.tokens and cost.problems == cost.updates * TINY.batch == len(losses) * TINY.batch
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.embed_tokens.weight, other.embed_tokens.weight)


def test_loss_is_taken_on_the_chain_alone() -> None:
    alphabet = Alphabet()
    for tokens, targets in next(chainlm.batches(TINY, alphabet)):
        for row, aim in zip(tokens.tolist(), targets.tolist(), strict=True):
            text = alphabet.decode(row)
            assert alphabet.decode(aim) == text.partition("?")[2]
            assert aim[text.index("?")] == row[text.index("?") + 1]


def test_a_cached_batch_samples_what_the_model_says_alone() -> None:
    model, alphabet = small(), Alphabet()
    prompts = ["C1 9 4>37?", "A48-2*2-9?", "Pq>d:qg,ic,gd,id,qi?"]
    for prompt, text in zip(prompts, sample(model, alphabet, prompts, 0.0, longest=12), strict=True):
        tokens = torch.tensor([alphabet.encode(prompt + text)])
        likely = model.logits(model(tokens))[0].argmax(-1).tolist()
        shown = alphabet.encode(text)
        assert likely[len(prompt) - 1 : -1] == shown
    assert sample(model, alphabet, [], 1.0) == []


def test_samples_repeat_by_seed_and_come_back_in_order() -> None:
    model, alphabet = small(), Alphabet()
    prompts = ["Pq>d:qg,ic,gd,id,qi?", "C1 9 4>37?"]
    one = sample_many(model, alphabet, prompts, 3, 40.0, seed=4, rows=3)
    assert one == sample_many(model, alphabet, prompts, 3, 40.0, seed=4, rows=3)
    assert one != sample_many(model, alphabet, prompts, 3, 40.0, seed=5, rows=3)
    assert [len(some) for some in one] == [3, 3]


def test_a_grove_scores_each_chain_as_if_it_stood_alone() -> None:
    torch.manual_seed(1)
    judge = StepReward(shape("1m"), Alphabet()).eval()
    torch.nn.init.normal_(judge.head_surprise.weight, std=0.1)
    groups = list(islice(reward.strays(RewardRecipe()), 8))
    grove = plant(groups, judge.alphabet)
    ends = grove.verdict >= 0
    with torch.no_grad():
        right, written = torch.zeros(grove.tokens.shape), judge(grove)[1]
        right[ends] = judge(grove)[0][:, Verdict.RIGHT].exp()
    for row, group in enumerate(groups):
        for k, (chain, verdicts) in enumerate(zip(group.chains, group.verdicts, strict=True), 1):
            alone = judge.probabilities([group.prompt + chain])[0]
            here = grove.branch[row] == k
            assert right[row][here & ends[row]].tolist() == pytest.approx(alone, abs=1e-5)
            assert grove.verdict[row][here & ends[row]].tolist() == list(verdicts)
            tokens = torch.tensor([judge.alphabet.encode(group.prompt + chain)])
            with torch.no_grad():
                logs = judge.trunk.logits(judge.trunk(tokens)).log_softmax(-1)[0, :-1]
            plain = logs.gather(-1, tokens[0, 1:, None])[len(group.prompt) - 1 :, 0]
            assert written[row][here].tolist() == pytest.approx(plain.tolist(), abs=1e-4)


def test_probabilities_are_one_a_finished_step() -> None:
    torch.manual_seed(1)
    judge = StepReward(shape("1m"), Alphabet())
    texts = ["C1 9 4>37?9*4=36\n36+1=37.", "C1 9 4>37?9*4=36\n36+", "C1 9 4>37?", "C1 9 4>37?9*4", "C1 9 4>37?9*4=36\n"]
    found = judge.probabilities(texts)
    assert [len(f) for f in found] == [2, 1, 0, 0, 1]
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6) == pytest.approx(found[4][0], abs=1e-6)
    assert judge.probabilities([texts[0] + "9*4=36\n"])[0] == pytest.approx(found[0], abs=1e-6)
    assert all(0 < p < 1 for p in found[0])
    with pytest.raises(UsageError, match="ends the prompt"):
        judge.probabilities(["9*4=36\n"])


def test_labels_keep_distinct_finished_chains() -> None:
    group = label("C1 9 4>37?", ["9*4=36\n36+1=37.", "9*4=36\n36+1=37.", "9*4=36\n", "9-4=5\n5-1=4."])
    assert group.chains == ["9*4=36\n36+1=37.", "9-4=5\n5-1=4."]
    assert group.verdicts == [(Verdict.RIGHT, Verdict.RIGHT), (Verdict.DOOMED, Verdict.AFTER)]


def test_the_pairwise_term_falls_when_right_outranks_wrong() -> None:
    """One right and one wrong chain: the loss under a judge that knows, against one that has it reversed."""
    group = label("C1 9 4>37?", ["9*4=36\n36+1=37.", "9-4=5\n5-1=4."])
    grove = plant([group], Alphabet())

    class Oracle(StepReward):
        def __init__(self, sign: float) -> None:
            super().__init__(shape("1m"), Alphabet())
            self.sign = sign

        def forward(self, grove: Grove) -> tuple[torch.Tensor, torch.Tensor]:
            branch = grove.branch[grove.verdict >= 0]
            scores = torch.zeros(len(branch), len(Verdict))
            scores[:, Verdict.RIGHT] = torch.where(branch == 1, self.sign, -self.sign)
            return scores.log_softmax(-1), torch.zeros(grove.tokens.shape)

    only_pairs = RewardRecipe(pairs=1.0)
    none = RewardRecipe(pairs=0.0)
    gaps = [
        (reward.loss_of(Oracle(s), grove, only_pairs) - reward.loss_of(Oracle(s), grove, none)).item()
        for s in (3.0, -3.0)
    ]
    assert 0 <= gaps[0] < 0.1 < 10 < gaps[1]


def test_a_step_reward_trains_on_strays_and_then_on_the_policys_own(tmp_path: Path) -> None:
    model = small()
    save(model, Card("chainlm-1m", "policy", model.config, Alphabet()), tmp_path)
    seen: list[float] = []
    recipe = RewardRecipe(start="chainlm-1m", tokens=5_000, groups=12, micro=2, own=3)
    judge, cost = reward.train(recipe, tmp_path, lambda _, tokens, loss: seen.append(loss))
    assert seen[-1] < seen[0] and cost.updates == len(seen) and cost.tokens >= 5_000
    card = Card(
        "chainlm-1m-step-reward", "step-reward", judge.trunk.config, judge.alphabet, asdict(recipe), asdict(cost)
    )
    save(judge, card, tmp_path)
    text = ["C1 9 4>37?9*4=36\n36+1=37."]
    loaded = reward.step_reward("chainlm-1m-step-reward", tmp_path)
    assert loaded.probabilities(text)[0] == pytest.approx(judge.probabilities(text)[0], abs=0.05)
    before = judge.head.weight.clone()
    further = RewardRecipe(start="chainlm-1m", tokens=1_000, groups=12, micro=2, own=3, own_from=0.0)
    again, _ = reward.train(further, tmp_path, earlier=judge)
    assert again is judge and not torch.equal(before, again.head.weight)


def test_a_checkpoint_comes_back_and_names_what_is_wrong(tmp_path: Path) -> None:
    model = small()
    card = save(model, Card("m", "policy", model.config, Alphabet(), {"size": "1m"}, {"tokens": 1}), tmp_path)
    tensors, read = load("m", tmp_path)
    assert read == card and read.sha256
    assert all(torch.equal(v, model.state_dict()[k].bfloat16().float()) for k, v in tensors.items())
    content = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(content[:-1])
    with pytest.raises(ModelError, match="m.safetensors has sha256"):
        load("m", tmp_path)
    (tmp_path / "m.safetensors").write_bytes(content)
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(ModelError, match="no readable checkpoint"):
        load("m", tmp_path)
    with pytest.raises(ModelError, match="there: m"):
        load("other", tmp_path)


@pytest.mark.parametrize("name", ["chainlm-2m", "chainlm-2m-step-reward"])
def test_the_shipped_checkpoints_are_small_and_whole(name: str) -> None:
    tensors, card = load(name)
    assert sum(v.numel() for v in tensors.values()) < 3e6
    assert card.config.vocab == len(card.alphabet) == 64
    assert card.cost["tokens"] > 1e6 and card.recipe["seed"] == 0


def test_the_recorded_measurement_is_of_the_shipped_files_and_meets_the_bars() -> None:
    """What `train.evaluate --json` wrote on the test split; the bars are those the models were made for."""
    record = json.loads((WEIGHTS / "chainlm-2m-measured.json").read_text())
    assert record["sha256"] == {n: load(n)[1].sha256 for n in ("chainlm-2m", "chainlm-2m-step-reward")}
    row = record["rows"]["all"]
    assert record["split"] == "test" and row["problems"] >= 300 and record["samples"] == 64
    assert 30 <= row["greedy"] <= 70
    assert row["pass"]["64"] > 90
    assert row["within_auroc"] >= 0.75 and row["within_auroc_distinct"] >= 0.75
    assert record["rise"][0] >= 20


def test_the_shipped_policy_and_reward_know_their_subject() -> None:
    """Cheap evidence that the files are the trained ones; the bars are measured by `train.evaluate`."""
    model, alphabet = chainlm.policy()
    tasks = chains(40, families="AL", seed=3)
    greedy = sample_many(model, alphabet, [str(t.prompt) for t in tasks], 1, temperature=0.0)
    assert sum(t.score(g[0]) for t, g in zip(tasks, greedy, strict=True)) > 0.7 * len(tasks)
    right, wrong = reward.step_reward().probabilities(
        ["A48-2*2-9+5?48-2=46\n46*2=92\n92-9=83\n83+5=88.", "A48-2*2-9+5?48-2=45\n"]
    )
    assert min(right) > 0.5 > wrong[0]
