import json

import pytest

from processing import quality_prompts as prompts
from processing import questions


@pytest.mark.parametrize("question", prompts.QUESTIONS.values(), ids=prompts.QUESTIONS)
def test_questions_are_asked_in_many_ways(question):
    assert len(set(question.instructions)) == len(question.instructions) >= 20
    assert len(set(question.restrictions)) == len(question.restrictions) >= 3
    if question.name == "level":
        assert all(word in restriction for restriction in question.restrictions for word in question.answers)


def test_drawn_words_depend_on_key_question_and_seed_alone():
    drawn = [prompts.SCORE.drawn(str(key)) for key in range(2000)]
    assert drawn == [prompts.SCORE.drawn(str(key)) for key in range(2000)]
    assert drawn != [prompts.SCORE.drawn(str(key), seed=1) for key in range(2000)]
    # Every pair of instruction and restriction comes up.
    assert len(set(drawn)) == len(prompts.SCORE.instructions) * len(prompts.SCORE.restrictions)


@pytest.mark.parametrize(("score", "answer"), [(0, "0"), (100, "100"), (66.4999, "66"), (66.5, "67"), (99.99, "100")])
def test_scores_are_written_as_whole_numbers(score, answer):
    assert questions.format_score(score) == answer
    assert abs(questions.parse_score(answer) - score) <= 0.5


@pytest.mark.parametrize("score", [-0.1, 100.1, float("nan")])
def test_a_score_off_the_scale_is_refused(score):
    with pytest.raises(ValueError, match="between 0 and 100"):
        questions.format_score(score)


@pytest.mark.parametrize(("answer", "score"), [("72", 72), (" 72.125\n", 72.125), ("100", 100), ("0", 0), ("7.", 7)])
def test_parse_score(answer, score):
    assert questions.parse_score(answer) == score


@pytest.mark.parametrize("answer", ["", "good", "72 points", "101", "-3", "1e1", "nan", "7_2", "１２", "1.2.3", "."])
def test_parse_score_is_strict(answer):
    with pytest.raises(questions.AnswerError):
        questions.parse_score(answer)


def test_words_are_parsed_strictly():
    level = prompts.QUESTIONS["level"]
    assert level.parse(" Good.\n") == "good"
    assert prompts.level_question(["bad", "fine"]).parse("bad") == "bad"
    for answer in ("", "goodish", "good fair", "excellent"):
        with pytest.raises(questions.AnswerError, match="is not a level: expected one of poor, fair, good"):
            level.parse(answer)


@pytest.mark.parametrize("question", prompts.QUESTIONS.values(), ids=prompts.QUESTIONS)
def test_all_answers_parse_back_and_a_question_survives_json(question):
    values = range(101) if question.kind == "number" else question.answers
    assert [question.parse(answer) for answer in question.answers] == list(values)
    assert prompts.question_of(json.loads(json.dumps(question.as_data()))) == question


def test_of_a_question_that_we_know_the_fields_that_differ_are_enough():
    level = prompts.question_of({"name": "level", "bounds": [60, 80]})
    assert level == prompts.level_question(bounds=[60, 80]) != prompts.level_question()
    assert prompts.question_of(json.loads(json.dumps(level.as_data()))) == level
    assert questions.level_bounds([level]) == [60, 80] and questions.level_bounds([prompts.SCORE]) == []
    assert questions.level_bounds([prompts.level_question(["bad", "good"])]) == [50]


def test_a_label_may_name_several_flaws_and_one_level():
    assert prompts.FLAW.words(" Noise ;compression; noise") == ("noise", "compression")
    assert prompts.FLAW.answer("noise;compression") == "noise"
    for question, label in ((prompts.FLAW, "noise;grain"), (prompts.QUESTIONS["level"], "good;fair")):
        with pytest.raises(questions.AnswerError, match=f"no answer to the question {question.name}"):
            question.words(label)


def test_a_question_without_words_of_its_own_is_asked_by_its_name():
    question = questions.Question("colour_fidelity", "number")
    assert question.fixed == "How good is the colour fidelity of this video? Answer with a number from 0 to 100."
    question = questions.Question("shake", "words", answers=["no", "a little", "yes"])
    assert question.fixed == "What is the shake of this video? Answer with one word: no, a little or yes."


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"name": "No spaces"}, "lower-case"),
        ({"kind": "scale"}, "number, ranked, words"),
        ({"answers": ["yes"]}, "two different words"),
        ({"answers": ["yes", "yes"]}, "two different words"),
        ({"kind": "number"}, "give it no answers"),
        ({"bounds": [50]}, "give ranked words one less"),
        ({"kind": "ranked", "bounds": [40, 60]}, "bounds 40, 60: give ranked words one less"),
        ({"kind": "ranked", "bounds": [100]}, "rising, between 0 and 100"),
        ({"wording": []}, "no field wording"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(field, said):
    with pytest.raises(questions.QuestionError, match=said):
        questions.Question.of({"name": "shake", "kind": "words", "answers": ["no", "yes"], **field})
