"""The task's scorer and a reward model as judges."""

import itertools

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from corrector.errors import UserError
from corrector.judges import Answer, Duel, ModelJudge, TaskJudge, check_pattern, load_reward_model
from corrector.records.kept import Kept
from tests.conftest import build_tokenizer

TEXTS = ["Tom has 2 apples.", "Ann buys 3 bags.", "no", "it is 7. it is 2.", "help"]


def duel(own, other=None, problem="a", **outcomes):
    return Duel(problem, "how many has Tom?", Answer(own, outcomes), None if other is None else Answer(other, {}))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A reward model on disk whose scores differ by text."""
    tokenizer = build_tokenizer(TEXTS)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("reward")
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def judge(saved, folder, **options):
    return ModelJudge(load_reward_model(str(saved)), Kept(folder), **options)


def test_the_task_judge_compares_recorded_outcomes():
    other = Answer("", {"correct": 0.0, "helpful": 0.1 + 0.2})
    duels = [Duel("a", "q", Answer("", {"correct": 1.0, "helpful": 0.3}), other)]
    got = TaskJudge(("correct", "helpful")).verdicts(duels)
    assert [(v.aspect, v.outcome) for v in got] == [("correct", "win"), ("helpful", "tie")]


def test_scores_are_the_models_own_and_batches_do_not_matter(saved, tmp_path):
    reward = load_reward_model(str(saved))
    pairs = [("how many has Tom?", text) for text in TEXTS]
    together = ModelJudge(reward, Kept(tmp_path / "a"), batch_size=4).scores(pairs)
    alone = ModelJudge(reward, Kept(tmp_path / "b"), batch_size=1).scores(pairs)
    assert together == pytest.approx(alone, abs=1e-5)
    ids = reward.tokenizer(*pairs[0], return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert together[pairs[0]] == pytest.approx(float(reward.model(input_ids=ids).logits[0, 0]), abs=1e-5)
    assert len(set(alone.values())) == len(TEXTS)


def test_a_cost_model_turns_the_winner_round(saved, tmp_path):
    duels = [duel(a, b, str(i)) for i, (a, b) in enumerate(itertools.pairwise(TEXTS))]
    reward = judge(saved, tmp_path / "a").verdicts(duels)
    cost = judge(saved, tmp_path / "b", lower_is_better=True).verdicts(duels)
    swap = {"win": "loss", "loss": "win"}
    assert [v.outcome for v in cost] == [swap[v.outcome] for v in reward]
    assert [(v.score, v.other_score) for v in cost] == [(v.score, v.other_score) for v in reward]
    assert {v.aspect for v in cost} == {"cost"} and {v.outcome for v in reward} == {"win", "loss"}
    (same,) = judge(saved, tmp_path / "c").verdicts([duel("no", "no")])
    assert same.outcome == "tie"
    (alone,) = judge(saved, tmp_path / "d").verdicts([duel("no")])
    assert alone.outcome is None and alone.score == pytest.approx(same.score)


def test_scores_are_kept_by_model_and_text(saved, tmp_path, monkeypatch):
    first = judge(saved, tmp_path)
    wanted = first.verdicts([duel("no", "help")])
    assert first.n_new == 2
    again = judge(saved, tmp_path)
    monkeypatch.setattr(again, "_forward", lambda *_: pytest.fail("scored again"))
    assert again.verdicts([duel("no", "help")]) == wanted
    other = judge(saved, tmp_path, pattern="Question: {question} Answer: {answer}")
    other.verdicts([duel("no", "help")])
    assert other.n_new == 2


def test_a_text_beyond_the_window_is_not_cut_and_not_judged(saved, tmp_path):
    (got,) = judge(saved, tmp_path).verdicts([duel("no", "it is 7. " * 40)])
    assert got.outcome == "too_long" and got.score is None


def test_without_a_padding_token_rows_go_alone(saved, tmp_path):
    reward = load_reward_model(str(saved))
    pairs = [("how many has Tom?", text) for text in TEXTS]
    wanted = ModelJudge(reward, Kept(tmp_path / "a")).scores(pairs)
    reward.model.config.pad_token_id = None
    got = ModelJudge(reward, Kept(tmp_path / "b")).scores(pairs)
    assert got == pytest.approx(wanted, abs=1e-5)


def test_a_chat_template_is_used_where_there_is_one(saved, tmp_path):
    reward = load_reward_model(str(saved))
    reward.tokenizer.chat_template = "{% for m in messages %}{{ m.role[0] }}: {{ m.content }}\n{% endfor %}"
    (ids, _) = ModelJudge(reward, Kept(tmp_path))._encode("how many?", "no")
    assert reward.tokenizer.decode(ids) == "u: how many?\na: no\n"


@pytest.mark.parametrize(
    "pattern", ["{question}", "{answer}{answer}{question}", "{question}{answer}{x}", "{question", "{0}"]
)
def test_patterns_that_lose_something_are_refused(pattern):
    with pytest.raises(UserError, match="pattern"):
        check_pattern(pattern)
    check_pattern("USER: {question} ASSISTANT:{answer}")


def test_models_of_another_kind_are_refused(saved, tmp_path, tiny_lm):
    with pytest.raises(UserError, match="no folder here"):
        load_reward_model("./absent")
    tiny_lm.model.save_pretrained(tmp_path / "lm")
    tiny_lm.tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(UserError, match=r"lacks|outputs"):
        load_reward_model(str(tmp_path / "lm"))
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for file in saved.iterdir():
        if file.suffix != ".safetensors":
            (pickled / file.name).write_bytes(file.read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_reward_model(str(pickled))
