"""Upstreams: lossless sentences, independence of the batch, recorded answers."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from corrector.errors import UserError
from corrector.tasks.base import Problem
from corrector.upstreams import LocalUpstream, ReplayUpstream, Request, ask, derived_seed
from tests.toy_task import Sums

ANSWER = "Tom has 12 apples. Ann buys 3 bags of 4 coins. it is 7."


class Writer(torch.nn.Module):
    """Stands for a trained model: a fixed answer behind the prompt's last special token, one token a forward."""

    def __init__(self, lm, answer):
        super().__init__()
        self.config, self.lm = lm.model.config, lm
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.script = [*lm.tokenizer(answer, add_special_tokens=False)["input_ids"], lm.eos_id]
        self.seen = []
        self.eval()

    def forward(self, input_ids, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep):
        if input_ids.shape[1] > 1:
            self.seen = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
            mark = self.lm.tokenizer.convert_tokens_to_ids("<p>")
            self.places = [len(row) - 1 - row.index(mark) for row in self.seen]
        logits = torch.zeros(len(input_ids), 1, self.config.vocab_size)
        for i in range(len(input_ids)):
            logits[i, 0, self.script[min(self.places[i], len(self.script) - 1)]] = 1.0
            self.places[i] += 1
        return type("Out", (), {"logits": logits})


def test_sentences_join_to_the_answer_and_end_with_the_empty_one(tiny_lm):
    lm = type(tiny_lm)(Writer(tiny_lm, ANSWER), tiny_lm.tokenizer, tiny_lm.template, "script")
    upstream, problem = LocalUpstream(lm, Sums()), Problem("p", "how many has Tom?")
    spans, prefix = [], ""
    for k in range(5):
        (span,) = ask(upstream, [Request(problem, prefix, k)])
        spans.append(span)
        prefix += span
    assert spans == ["Tom has 12 apples.", " Ann buys 3 bags of 4 coins.", " it is 7.", "", ""]


def test_a_sentence_stops_soon_after_it_is_certain(tiny_lm):
    writer = Writer(tiny_lm, ANSWER)
    lm = type(tiny_lm)(writer, tiny_lm.tokenizer, tiny_lm.template, "script")
    ask(LocalUpstream(lm, Sums()), [Request(Problem("p", "how many has Tom?"), "", 0)])
    n_first = len(lm.tokenizer("Tom has 12 apples.")["input_ids"])
    assert writer.places[0] <= n_first + 3


def test_requests_do_not_depend_on_each_other(tiny_lm):
    problems = Sums().problems("test", 5)
    requests = [Request(p, "", k) for p in problems for k in (0, 1)]
    upstream = LocalUpstream(tiny_lm, Sums(), temperature=3.0, seed=1)
    together = ask(upstream, requests)
    assert len(set(together)) > 5
    assert [ask(upstream, [r])[0] for r in requests] == together
    assert ask(upstream, requests[::-1]) == together[::-1]
    other = ask(LocalUpstream(tiny_lm, Sums(), temperature=3.0, seed=2), requests)
    assert sum(a != b for a, b in zip(together, other, strict=True)) > 5


def test_seeds_depend_on_every_part():
    seeds = {derived_seed(s, p, r) for s in (0, 1) for p in ("a", "b") for r in (0, 1)}
    assert len(seeds) == 8
    assert derived_seed(0, "a", 1) == derived_seed(0, "a", 1)
    assert derived_seed(0, "a1", 1) != derived_seed(0, "a", 11)


def test_a_tokenizer_that_drops_the_first_space_loses_none(tiny_lm):
    core = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["<unk>", "<eos>", "▁Tom", "▁has", "▁it", "."])}, "<unk>")
    )
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Split(".", "isolated")]
    )
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="<unk>")
    assert tokenizer.decode(tokenizer("Tom has.")["input_ids"]) == "Tom has."

    class Template:
        turn = None

        def render_upstream(self, question, prefix):
            from corrector.prompts import Prompt

            return Prompt(prefix, {"prefix": (0, len(prefix))})

    class Said:
        def __call__(self, **kwargs):
            self.n += 1
            logits = torch.zeros(1, 1, 6)
            logits[0, 0, [4, 3, 5, 1][min(self.n, 3)]] = 1
            return type("Out", (), {"logits": logits})

        n, training, config = -1, False, tiny_lm.model.config
        parameters = tiny_lm.model.parameters

    lm = type(tiny_lm)(Said(), tokenizer, tiny_lm.template, "said")
    object.__setattr__(lm, "template", Template())
    assert ask(LocalUpstream(lm, Sums()), [Request(Problem("p", ""), "Tom has.", 1)]) == [" it has."]


def test_fits_counts_the_answer_and_the_window(tiny_lm):
    upstream, problem = LocalUpstream(tiny_lm, Sums()), Problem("p", "how many has Tom?")
    n = len(tiny_lm.tokenizer(ANSWER)["input_ids"])
    assert upstream.fits(Request(problem, ANSWER, 1), n + 1)
    assert not upstream.fits(Request(problem, ANSWER, 1), n)
    assert not upstream.fits(Request(problem, ANSWER * 30, 1), 10**6)


def test_replay_plays_by_round_and_names_what_is_missing():
    upstream, problem = ReplayUpstream({"p": ["a.", " b."]}), Problem("p", "")
    requests = [Request(problem, "whatever", k) for k in (1, 0, 2)]
    assert ask(upstream, requests) == [" b.", "a.", ""]
    with pytest.raises(UserError, match="no recorded answer for problem 'q'"):
        ask(upstream, [Request(Problem("q", ""), "", 0)])
