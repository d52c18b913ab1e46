"""Rows to replay: contexts that hold others, what is left out of them, what is redacted."""

from __future__ import annotations

from typing import Any

from tinygpt.data import atraj
from tinygpt.data.replaying import Row, rows


def found(*steps: dict[str, Any]) -> tuple[list[Row], int]:
    usual: dict[str, Any] = {"role": "assistant", "content": ""}
    made = [atraj.Step(**(usual | one)) for one in steps]
    return rows(atraj.Trajectory(atraj.Header(id="a"), made, None))


def test_contexts_that_only_grow_are_one_row() -> None:
    assert found(
        {"role": "user", "ids": [1, 2, 3]},
        {"n_kept": 3, "ids": [4, 5, 6], "logprobs": [None, -1.0, -2.0]},
        {"role": "user", "n_kept": 6, "ids": [7]},
        {"n_kept": 7, "ids": [8], "logprobs": [-3.0]},
        {"role": "user", "n_kept": 8, "ids": [9]},
    ) == ([Row([1, 2, 3, 4, 5, 6, 7, 8], {4: -1.0, 5: -2.0, 7: -3.0})], 0)


def test_what_left_the_context_is_in_a_row_of_its_own() -> None:
    answer = {"n_kept": 2, "ids": [3, 4], "logprobs": [-1.0, -2.0]}
    again = {"n_kept": 3, "ids": [5], "logprobs": [-3.0]}
    assert found({"role": "user", "ids": [1, 2]}, answer, again) == (
        [Row([1, 2, 3, 4], {2: -1.0, 3: -2.0}), Row([1, 2, 3, 5], {3: -3.0})],
        0,
    )
    kept = {**again, "n_kept": 4}
    assert len(found({"role": "user", "ids": [1, 2]}, answer, kept)[0]) == 1


def test_behind_a_redacted_token_nothing_is_known_until_it_is_gone() -> None:
    assert found(
        {"role": "user", "ids": [1]},
        {"n_kept": 1, "ids": [2, -1, 3], "logprobs": [-1.0, None, -2.0]},
        {"n_kept": 4, "ids": [4], "logprobs": [-3.0]},
        {"n_kept": 2, "ids": [5], "logprobs": [-4.0]},
    ) == ([Row([1, 2, 5], {1: -1.0, 2: -4.0})], 2)


def test_the_first_token_and_steps_without_tokens_have_no_row() -> None:
    assert found({"ids": [1], "logprobs": [-1.0]}) == ([], 1)
    assert found({"role": "user"}, {"ids": [1, 2], "logprobs": [None, -1.0]}) == ([], 0)
