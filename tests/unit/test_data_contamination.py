"""Every run of words that an evaluation has in common with a text is found, and nothing shorter."""

from __future__ import annotations

import random
from typing import Any

from tinygpt.data.contamination import Evaluation, Example, Settings

WORDS = [f"word{i}" for i in range(4000)]


def given(*rows: Any, **settings: int) -> Evaluation:
    examples = [(Example(file="e", number=i), row) for i, row in enumerate(rows, 1)]
    return Evaluation(examples, Settings(**settings))


def test_each_planted_run_is_found_and_one_word_less_is_not() -> None:
    draw = random.Random(0)
    questions = [draw.sample(WORDS, 30) for _ in range(40)]
    evaluation = given(*({"question": " ".join(q).upper(), "answer": "7"} for q in questions))
    texts, short, planted = list[str](), list[str](), list[tuple[int, str]]()
    for i, question in enumerate(questions):
        for at in range(30 - 13 + 1):
            before, run = (
                draw.sample(["alpha", "beta", "gamma"] * 9, draw.randrange(27)),
                question[at : at + 13],
            )
            texts.append(" ".join([*before, *run]) + ", indeed" * draw.randrange(3))
            planted.append((i, " ".join(run)))
            short.append(" ".join([*before, *run[:12], "other"]))
    assert evaluation.find(texts) == [{i: run} for i, run in planted]
    assert not any(evaluation.find(short))
    assert evaluation.n_short == 40  # the answers


def test_marks_case_and_forms_do_not_hide_a_run() -> None:
    evaluation = given({"prompt": "Write a function that returns the sum of all even numbers in it."})
    hidden = 'def f():\n  """WRITE a function, that\n\treturns: the "sum" of ａll even-numbers IN it"""'
    assert evaluation.find([hidden])[0].keys() == {0}


def test_short_texts_are_looked_for_as_a_whole() -> None:
    evaluation = given({"q": "what is the capital of France"}, {"q": "is it so"}, least=5)
    found = evaluation.find(["Tell me: what is the capital of France?", "the capital of France", "is it so"])
    assert found == [{0: "what is the capital of france"}, {}, {}] and evaluation.n_short == 1
    assert given({"q": "is it so"}, least=1).find(["and is it so?"]) == [{0: "is it so"}]
    assert not any(given({"q": ""}, least=1).find(["", "a"]))


def test_what_too_many_examples_share_is_an_instruction() -> None:
    instruction = "please answer the question below with one word and nothing else at all thanks"
    rows = [{"q": f"{instruction} {' '.join(WORDS[20 * i : 20 * i + 20])}"} for i in range(4)]
    told = [instruction, rows[2]["q"]]
    assert [set(found) for found in given(*rows, most_shared=4).find(told)] == [{0, 1, 2, 3}] * 2
    evaluation = given(*rows, most_shared=3)
    assert [set(found) for found in evaluation.find(told)] == [set(), {2}] and evaluation.n_shared == 2


def test_rows_of_any_shape_and_texts_that_share_with_several() -> None:
    run = " ".join(WORDS[:13])
    messages = {"messages": [{"role": "user", "content": run}, {"role": "assistant", "content": "no"}]}
    evaluation = given(messages, run, {"deep": [{"er": run + " end"}]}, {"n": 3})
    assert evaluation.find([f"so {run} so"]) == [dict.fromkeys((0, 1, 2), run)]
    assert evaluation.find([]) == []
    assert given({"n": 3}).find(["a text"]) == [{}]


def test_scripts_without_spaces() -> None:
    question = "北京是中华人民共和国的首都也是全国政治中心"
    evaluation = given({"q": question})
    assert evaluation.find([f"据说{question[3:18]}。"])[0].keys() == {0}
    assert not evaluation.find([question[:10] + "某" + question[10:]])[0]
