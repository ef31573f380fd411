"""Batched sampling, against teacher-forced forward passes and against closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer_ext.assets.tiny_qwen2 import make_model
from trainer_ext.sampling import Request, draw, log_softmax_at, restrict, sample_batch

EOS = frozenset([2])


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model(seed=0).eval()


def request(prompt: list[int], seed: int = 0, **settings: Any) -> Request:
    return Request(prompt=prompt, seed=seed, **{"max_tokens": 6, **settings})


def test_log_probs_are_those_of_a_teacher_forced_forward_pass(model: Any) -> None:
    prompts = [[5, 6, 7], list(range(10, 22)), [40]]
    temperatures = [1.0, 0.7, 1.3]
    requests = [request(p, seed=i, temperature=t) for i, (p, t) in enumerate(zip(prompts, temperatures, strict=True))]
    samples = sample_batch(model, requests, eos=EOS, pad=0)
    for prompt, temperature, sample in zip(prompts, temperatures, samples, strict=True):
        ids = torch.tensor([prompt + sample.token_ids])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits / temperature, -1).gather(-1, ids[0, len(prompt) :, None]).squeeze(-1)
        torch.testing.assert_close(torch.tensor(sample.log_probs), expected, atol=2e-6, rtol=1e-5)


def test_a_request_samples_the_same_alone_and_in_a_batch(model: Any) -> None:
    prompts = [[5, 6, 7], list(range(10, 30)), [90, 91]]
    together = sample_batch(model, [request(p, seed=i) for i, p in enumerate(prompts)], eos=EOS, pad=0)
    alone = [sample_batch(model, [request(p, seed=i)], eos=EOS, pad=0)[0] for i, p in enumerate(prompts)]
    assert [s.token_ids for s in together] == [s.token_ids for s in alone]


def test_every_request_stops_at_its_own_limit(model: Any) -> None:
    samples = sample_batch(model, [request([5], max_tokens=n) for n in (1, 3, 7)], eos=frozenset(), pad=0)
    assert [len(sample.token_ids) for sample in samples] == [1, 3, 7]


def test_an_end_token_is_the_last_one(model: Any) -> None:
    free = sample_batch(model, [request([5, 6], max_tokens=12)], eos=frozenset(), pad=0)[0]
    stop = free.token_ids[4]
    stopped = sample_batch(model, [request([5, 6], max_tokens=12)], eos=frozenset([stop]), pad=0)[0]
    assert stopped.token_ids == free.token_ids[: free.token_ids.index(stop) + 1]


def test_temperature_zero_takes_the_most_likely_token(model: Any) -> None:
    sample = sample_batch(model, [request([5, 6, 7], temperature=0.0, max_tokens=1)], eos=EOS, pad=0)[0]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1]
    assert sample.token_ids == [int(logits.argmax())]
    assert sample.log_probs == pytest.approx([float(torch.log_softmax(logits, -1).max())], abs=1e-5)


def exponentials(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.sampled_from([0.0, 1e-30, 0.2, 1.0]), min_size=2, max_size=8).filter(any), st.integers(0, 999))
def test_a_token_without_probability_is_never_drawn(weights: list[float], seed: int) -> None:
    index = int(draw(torch.tensor([weights]), exponentials(1, len(weights), seed=seed)))
    assert torch.tensor(weights)[index] > 0


def test_draws_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    counts = draw(probabilities.expand(40_000, 4) * 7, exponentials(40_000, 4)).bincount(minlength=4) / 40_000
    torch.testing.assert_close(counts, probabilities, atol=8e-3, rtol=0)  # three standard deviations


def test_rare_tokens_of_a_large_vocabulary_are_not_drawn_more_often_than_they_should() -> None:
    probabilities = torch.full((1, 50_000), 1e-12)
    probabilities[0, 7] = 1.0
    assert {int(draw(probabilities, exponentials(1, 50_000, seed=seed))) for seed in range(60)} == {7}


def test_noise_in_the_last_bits_changes_no_draw() -> None:
    noise = torch.Generator().manual_seed(1)
    logits = torch.randn(200, 5_000, generator=noise) * 3
    other = logits + 2e-6 * torch.randn(logits.shape, generator=noise)
    race = exponentials(*logits.shape)
    assert torch.equal(draw(logits.softmax(-1), race), draw(other.softmax(-1), race))


def test_top_k_and_top_p_keep_the_likeliest_of_each_row() -> None:
    rows = torch.tensor([[0.1, 0.4, 0.2, 0.3]] * 4)
    kept = restrict(rows, torch.tensor([-1, 2, -1, 1]), torch.tensor([1.0, 1.0, 0.65, 0.2])) > 0
    assert kept.tolist() == [
        [True, True, True, True],
        [False, True, False, True],
        [False, True, False, True],
        [False, True, False, False],
    ]


def test_zero_temperature_leaves_log_probs_at_temperature_one() -> None:
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_softmax_at(logits, torch.tensor([0.0, 1.0])), torch.log_softmax(logits, -1))
