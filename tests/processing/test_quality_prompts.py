import pytest

from processing import quality_prompts as prompts


@pytest.mark.parametrize("task", prompts.TASKS)
def test_templates_are_many_and_different(task):
    assert len(set(prompts.instructions(task))) == len(prompts.instructions(task)) >= 20
    assert len(set(prompts.restrictions(task))) == len(prompts.restrictions(task)) >= 3
    if task == "level":
        words = ["bad", "poor", "fair", "good", "excellent"]
        assert all(word in restriction for restriction in prompts.restrictions(task, words) for word in words)


def test_drawn_questions_depend_on_key_task_and_seed_alone():
    drawn = [prompts.drawn_question("score", str(key)) for key in range(2000)]
    assert drawn == [prompts.drawn_question("score", str(key)) for key in range(2000)]
    assert drawn != [prompts.drawn_question("score", str(key), seed=1) for key in range(2000)]
    # Every pair of instruction and restriction comes up.
    assert len(set(drawn)) == len(prompts.instructions("score")) * len(prompts.restrictions("score"))


@pytest.mark.parametrize(("score", "answer"), [(0, "0"), (100, "100"), (66.4999, "66"), (66.5, "67"), (99.99, "100")])
def test_scores_are_written_as_whole_numbers(score, answer):
    assert prompts.format_score(score) == answer
    assert abs(prompts.parse_score(answer) - score) <= 0.5


@pytest.mark.parametrize("score", [-0.1, 100.1, float("nan")])
def test_a_score_off_the_scale_is_refused(score):
    with pytest.raises(ValueError, match="between 0 and 100"):
        prompts.format_score(score)


@pytest.mark.parametrize(("answer", "score"), [("72", 72), (" 72.125\n", 72.125), ("100", 100), ("0", 0), ("7.", 7)])
def test_parse_score(answer, score):
    assert prompts.parse_score(answer) == score


@pytest.mark.parametrize("answer", ["", "good", "72 points", "101", "-3", "1e1", "nan", "7_2", "１２", "1.2.3", "."])
def test_parse_score_is_strict(answer):
    with pytest.raises(prompts.AnswerError):
        prompts.parse_score(answer)


def test_parse_level():
    assert prompts.parse_level(" Good.\n") == "good"
    assert prompts.parse_level("bad", ["bad", "fine"]) == "bad"
    for answer in ("", "goodish", "good fair", "excellent"):
        with pytest.raises(prompts.AnswerError):
            prompts.parse_level(answer)


def test_all_answers_parse_back():
    assert [prompts.parse_score(answer) for answer in prompts.score_answers()] == list(range(101))
