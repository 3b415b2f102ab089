"""The read-out against an enumeration that knows nothing of tries, branches or caches."""

import copy
import json

import pytest
import torch
from tiny_models import make_tiny

from modeling_lmmvqa.answer_tries import AnswerTrie, lay_out_branches
from modeling_lmmvqa.quality_read_out import read_number, read_words
from processing.processing_lmmvqa import LmmVqaProcessor
from processing.quality_prompts import FLAW, QUESTIONS, conversation
from processing.questions import Question, QuestionError


def test_an_answer_is_cut_where_no_other_shares_it():
    end = 9
    trie = AnswerTrie([[5, end], [5, 7, end], [1, 0, end], [1, 0, 0, end], [2, end]])
    assert trie.answers == [(5, end), (5, 7), (1, 0, end), (1, 0, 0), (2,)]
    assert trie.nodes == [(), (1,), (5,), (1, 0)]


def test_the_same_answer_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        AnswerTrie([[1, 9], [1, 9]])


def test_an_answer_that_is_kept_whole_is_said_to_its_end():
    end = 9
    answers = [[5, end], [5, 7, end], [1, 0, end]]
    cut, whole = AnswerTrie(answers), AnswerTrie(answers, {1})
    assert cut.answers == [(5, end), (5, 7), (1,)] and whole.answers == [(5, end), (5, 7, end), (1,)]
    assert cut.nodes == [(), (5,)] and whole.nodes == [(), (5,), (5, 7)]
    logits = torch.randn(2, 3, 10)
    known, found = cut.log_likelihoods(logits[:, :2]), whole.log_likelihoods(logits)
    torch.testing.assert_close(found[:, [0, 2]], known[:, [0, 2]])
    torch.testing.assert_close(found[:, 1], known[:, 1] + logits[:, 2].log_softmax(-1)[:, end])


def test_likelihoods_are_among_everything_that_may_be_said():
    trie = AnswerTrie([[0, 3], [1, 3]])
    logits = torch.zeros(1, len(trie.nodes), 4)
    torch.testing.assert_close(trie.log_likelihoods(logits).exp(), torch.tensor([[0.25, 0.25]]))
    torch.testing.assert_close(trie.log_probabilities(logits).exp(), torch.tensor([[0.5, 0.5]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tokens_keep_their_numbers_in_half_precision(dtype):
    """Half precision has no 30233: the token beside it would be read."""
    trie = AnswerTrie([(30233, 2), (29389, 2), (12018, 2)])
    logits = torch.zeros(1, 1, 40_000, dtype=dtype)
    logits[..., 30233] = 10
    assert trie.log_probabilities(logits).exp()[0, 0] > 0.99
    assert trie.log_likelihoods(logits).exp()[0, 0] == pytest.approx(0.355, abs=0.01)


def test_branches_see_their_ancestors_only():
    trie = AnswerTrie([[5, 9], [5, 7, 9], [6, 9], [6, 7, 9]])
    branches = lay_out_branches([[1, 2], [3]], [trie, AnswerTrie([[4, 9], [8, 9]])])
    assert branches.token_ids.tolist() == [1, 2, 5, 6, 3]
    assert branches.depths.tolist() == [0, 1, 2, 2, 0]
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert branches.visible.astype(int).tolist() == expected
    assert branches.nodes == [[1, 2, 3], [4]]


def test_moments_and_interval_of_known_distributions():
    certain = torch.full((101,), -float("inf"))
    certain[70] = 0.0
    uniform = torch.full((101,), -torch.tensor(101.0).log().item())
    score = read_number(torch.stack([certain, uniform]))
    torch.testing.assert_close(score.value, torch.tensor([70.0, 50.0]))
    # The deviation of a uniform distribution over n whole numbers is sqrt((n * n - 1) / 12).
    torch.testing.assert_close(score.std, torch.tensor([0.0, ((101**2 - 1) / 12) ** 0.5]))
    # The distribution of 101 equal points spread over [-0.5, 100.5].
    torch.testing.assert_close(score.interval, torch.tensor([[69.55, 70.45], [4.55, 95.45]]))
    level = read_words(torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]).log(), ["poor", "fair", "good"])
    assert level.value == ["fair", "good"]


def enumerate_answers(model, processor, inputs, task, answers):
    """Probability of every answer by a plain pass of its own, given that one of `answers` is meant."""
    texts = [processor.answer_ids(answer) for answer in answers]
    question = list(processor.ask([task])[0].token_ids)
    rows = []
    for video in range(len(inputs["input_ids"])):
        present = inputs["attention_mask"][video].bool()
        prefix = inputs["input_ids"][video][present].tolist() + question
        count = inputs["chunk_counts"][video]
        spatial, temporal = model.model.encode_videos(
            *(inputs[name][video : video + 1, :count] for name in ("pixel_values_videos", "temporal_values"))
        )
        logs = []
        for text in texts:
            # As far as needed to tell it from the others, by looking at all of them.
            length = next(n for n in range(1, len(text) + 1) if sum(other[:n] == text[:n] for other in texts) == 1)
            row = torch.tensor([prefix + text[:length]])
            logits = model(input_ids=row, spatial_features=spatial, temporal_features=temporal).logits[0].double()
            steps = logits.log_softmax(-1)[len(prefix) - 1 : -1]
            logs.append(sum(step[token] for step, token in zip(steps, text[:length], strict=True)))
        rows.append(torch.stack(logs).softmax(0))
    return torch.stack(rows)


@pytest.mark.parametrize("digits_per_token", [1, 3], ids=["digit-tokens", "number-tokens"])
@torch.no_grad()
def test_the_distribution_equals_an_enumeration(digits_per_token, tiny_inputs):
    model, processor = make_tiny(digits_per_token)
    assert len(processor.answer_ids("57")) == (3 if digits_per_token == 1 else 2)
    # The video tensors do not depend on the tokenizer; the text does.
    rows = [processor.assessment_prefix_ids(int(count)) for count in tiny_inputs["chunk_counts"]]
    width = max(map(len, rows))
    pad = processor.tokenizer.pad_token_id
    inputs = dict(tiny_inputs) | {"questions": processor.ask()}
    inputs["input_ids"] = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    inputs["attention_mask"] = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    quality = model.assess(**inputs)

    scores = enumerate_answers(model, processor, inputs, "score", [str(value) for value in range(101)])
    levels = enumerate_answers(model, processor, inputs, "level", processor.levels)
    torch.testing.assert_close(quality.score_probabilities.double(), scores, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(quality.level_probabilities.double(), levels, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(quality.score.double(), scores @ torch.arange(101.0).double(), atol=1e-3, rtol=0)


def test_assess_is_the_same_alone_and_in_a_batch(tiny, tiny_inputs, clip):
    model, processor = tiny
    together = model.assess(**tiny_inputs)
    alone = model.assess(**processor(videos=str(clip)))
    torch.testing.assert_close(together.score[:1], alone.score, atol=1e-3, rtol=0)
    torch.testing.assert_close(together.level_probabilities[:1], alone.level_probabilities, atol=1e-5, rtol=1e-4)
    assert together.score[0] != together.score[1]


def test_assess_is_deterministic(tiny, tiny_inputs):
    model, _ = tiny
    assert torch.equal(model.assess(**tiny_inputs).score, model.assess(**tiny_inputs).score)


def test_eager_attention_agrees(tiny, tiny_inputs):
    model, _ = tiny
    expected = model.assess(**tiny_inputs)
    try:
        model.set_attn_implementation("eager")
        found = model.assess(**tiny_inputs)
    finally:
        model.set_attn_implementation("sdpa")
    torch.testing.assert_close(found.score, expected.score, atol=1e-3, rtol=0)


def test_generated_answers_are_parsed_strictly(tiny, tiny_inputs):
    """A decoder with random weights does not answer in the format, and that must be an error, never a default."""
    model, processor = tiny
    quality = model.assess(**tiny_inputs, mode="generate", processor=processor)
    assert all("is not a score" in error for error in quality.errors)
    assert quality.score.isnan().all() and quality.level == [None] * len(quality.errors)
    with pytest.raises(ValueError, match="needs the processor"):
        model.assess(**tiny_inputs, mode="generate")
    with pytest.raises(ValueError, match="'distribution' or 'generate'"):
        model.assess(**tiny_inputs, mode="sample")


def test_five_levels(clip):
    words = ["bad", "poor", "fair", "good", "excellent"]
    model, processor = make_tiny(levels=words)
    quality = model.assess(**processor(videos=str(clip)))
    assert quality.level_probabilities.shape == (1, 5)
    assert quality.level[0] in words
    torch.testing.assert_close(quality.level_probabilities.sum(1), torch.ones(1))


def test_a_processor_with_other_levels_is_refused(tiny, clip):
    model, _ = tiny
    _, other = make_tiny(levels=["bad", "good"])
    with pytest.raises(ValueError, match=r"the levels \['bad', 'good'\]"):
        model.assess(**other(videos=str(clip)))


def test_the_prefix_is_the_same_for_all_questions(tiny):
    _, processor = tiny
    prefixes = {processor.split_prompt(conversation(question.fixed))[0] for question in QUESTIONS.values()}
    assert len(prefixes) == 1


@torch.no_grad()
def test_a_third_question_costs_its_tokens_and_changes_no_other_answer(tiny, tiny_inputs, monkeypatch):
    model, processor = tiny
    taught = copy.copy(processor)
    taught.questions = (*processor.questions, FLAW)
    two, three = (model.assess(**dict(tiny_inputs) | {"questions": asked.ask()}) for asked in (processor, taught))
    for name in ("score_probabilities", "level_probabilities"):
        torch.testing.assert_close(getattr(three, name), getattr(two, name), atol=1e-6, rtol=1e-3)
    flaws = enumerate_answers(model, taught, tiny_inputs, "flaw", FLAW.answers)
    torch.testing.assert_close(three.answers["flaw"].probabilities.double(), flaws, atol=1e-6, rtol=1e-3)
    # One pass over both videos, longer by the tokens of the third branch.
    lengths = []
    passes = type(model.model).forward
    monkeypatch.setattr(
        type(model.model), "forward", lambda *a, **k: lengths.append(k["input_ids"].shape[1]) or passes(*a, **k)
    )
    for asked in (processor, taught):
        model.assess(**dict(tiny_inputs) | {"questions": asked.ask()})
    (flaw,) = taught.ask(["flaw"])
    assert lengths[1] - lengths[0] == len(lay_out_branches([flaw.token_ids], [AnswerTrie(flaw.answer_ids)]).token_ids)
    assert set(model.assess(**dict(tiny_inputs) | {"questions": taught.ask(["flaw"])}).answers) == {"flaw"}


def test_a_question_that_was_never_taught_is_refused(tiny, clip):
    _, processor = tiny
    with pytest.raises(QuestionError, match="never taught the question flaw: it answers score, level"):
        processor(videos=str(clip), questions=["score", "flaw"])


def test_a_processor_keeps_its_questions_and_takes_the_levels_of_older_ones(tmp_path):
    _, processor = make_tiny(levels=["bad", "good"])
    processor.questions = (*processor.questions, FLAW, Question("sharpness", "number"))
    processor.save_pretrained(tmp_path)
    assert LmmVqaProcessor.from_pretrained(tmp_path).questions == processor.questions
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    del saved["questions"]
    (tmp_path / "processor_config.json").write_text(json.dumps(saved | {"levels": ["bad", "good"]}))
    assert LmmVqaProcessor.from_pretrained(tmp_path).questions == processor.questions[:2]
    for questions in ([FLAW], [*processor.questions, FLAW]):
        with pytest.raises(QuestionError, match="can't hold the questions"):
            LmmVqaProcessor(processor.video_processor, processor.tokenizer, questions=questions)


def test_calibration_maps_score_and_interval():
    scores = torch.randn(4, 101).log_softmax(-1)
    plain = read_number(scores)
    doubled = read_number(scores, [[25.0, 0.0], [75.0, 100.0]])
    torch.testing.assert_close(doubled.value, (2 * plain.value - 50).clamp(0, 100), atol=1e-4, rtol=0)
    torch.testing.assert_close(doubled.interval, (2 * plain.interval - 50).clamp(0, 100), atol=1e-4, rtol=0)
    assert torch.equal(doubled.probabilities, plain.probabilities)
    wide = read_number(scores, interval_scale=1.1)
    distance = plain.interval - plain.value[:, None]
    torch.testing.assert_close(wide.interval, (plain.value[:, None] + 1.1 * distance).clamp(0, 100), atol=1e-4, rtol=0)
    torch.testing.assert_close(wide.std, 1.1 * plain.std)
    same = read_number(scores, [[0.0, 0.0], [40.0, 40.0], [100.0, 100.0]])
    torch.testing.assert_close(same.std, plain.std, atol=1e-4, rtol=0)


def test_a_cached_template_changes_nothing(tiny, tiny_inputs):
    """The rows are of different length, so one of them is padded."""
    model, processor = tiny
    expected = model.assess(**tiny_inputs)
    template = model.cache_template(torch.tensor(processor.assessment_prefix_ids(1)))
    assert 5 < len(template.token_ids) < tiny_inputs["input_ids"].shape[1]
    for _ in range(2):
        found = model.assess(**tiny_inputs, template_cache=template)
        torch.testing.assert_close(found.score_probabilities, expected.score_probabilities, atol=1e-6, rtol=1e-3)
        torch.testing.assert_close(found.level_probabilities, expected.level_probabilities, atol=1e-6, rtol=1e-3)
    other = model.cache_template(template.token_ids.flip(0))
    with pytest.raises(ValueError, match="does not begin with the cached template"):
        model.assess(**tiny_inputs, template_cache=other)


def test_attention_that_cannot_be_masked_is_refused(tiny, tiny_inputs):
    model, _ = tiny
    model.config.text_config.sliding_window = 20
    try:
        with pytest.raises(ValueError, match="last 20 tokens"):
            model.assess(**tiny_inputs)
    finally:
        del model.config.text_config.sliding_window
