"""Decoding a tree behind a shared prompt against full forward passes."""

import numpy as np
import pytest
from tiny import tiny_model

from mlx_tslm import Prompt, Series
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.models.tree_decoder import FIRST_CAPACITY, ROOT, SPARE, TreeDecoder

WAVE = np.sin(np.arange(60) / 3)
PROMPT = Prompt("What is this?", [Series("a wave", WAVE)], "Answer:")


class Grower:
    """Grows a random tree in a decoder, and knows each node's tokens."""

    def __init__(self, model: SoftPromptModel, prompt: Prompt, seed: int) -> None:
        self.model, self.prompt = model, prompt
        cache = model.prefill(prompt)
        # Where the model opens with BOS, that is part of the prompt's cache.
        self.opening = (model.tokenizer.bos_token_id,) * (cache.length - model.embed(prompt).shape[1])
        self.decoder = TreeDecoder(model.language_model, cache)
        self.paths: list[tuple[int, ...]] = [()]
        self.rng = np.random.default_rng(seed)

    def step(self, parents: np.ndarray) -> np.ndarray:
        nodes = np.arange(len(self.paths), len(self.paths) + len(parents), dtype=np.int32)
        tokens = self.rng.integers(3, 300, len(parents)).astype(np.int32)
        self.decoder.step(nodes, parents.astype(np.int32), tokens)
        self.paths += [(*self.paths[parent], int(token)) for parent, token in zip(parents, tokens, strict=True)]
        return nodes

    def worst(self, nodes: np.ndarray) -> float:
        """The largest difference from the logits of a full forward pass."""
        found = np.array(self.decoder.logits(nodes))
        full = [np.array(self.model.score(self.prompt, self.opening + self.paths[node]))[-1] for node in nodes]
        return float(np.abs(found - np.stack(full)).max())


@pytest.mark.parametrize(("kind", "pad"), [("llama", False), ("gemma", False), ("gemma", True)])
def test_random_trees_agree_with_full_forward_passes(kind: str, pad: bool) -> None:
    model = tiny_model(kind, pad_text_left=pad)
    grower = Grower(model, PROMPT, seed=1)
    prompt_length = len(model.embed(PROMPT)[0])
    if kind == "gemma":  # the sliding window ends within the prompt, and later within the suffix
        assert prompt_length > model.language_model.args.sliding_window
    assert grower.worst(np.array([ROOT])) < 2e-4
    nodes = grower.step(np.zeros(5, np.int32))
    for turn in range(1, 40):
        if turn % 7 == 0:  # walkers start anywhere, at ragged depths
            parents = np.sort(grower.rng.choice(len(grower.paths), size=5, replace=False))
        elif turn % 7 == 3:  # some fork, some stop
            parents = nodes[[0, 0, 1, 3, 3, 3]] if len(nodes) > 3 else nodes[[0, 0]]
        else:
            parents = nodes
        nodes = grower.step(parents)
        if turn % 13 == 0 or turn in (7, 10, 39):
            assert grower.worst(nodes) < 2e-4, turn
    assert max(map(len, grower.paths)) >= 15
    assert grower.decoder.tokens == len(grower.paths) - 1
    assert grower.decoder.forward_passes == 40


def test_a_deep_path_leaves_the_prompt_behind_the_sliding_window() -> None:
    grower = Grower(tiny_model("gemma"), PROMPT, seed=2)
    nodes = np.array([ROOT, ROOT])
    for _ in range(2 * grower.model.language_model.args.sliding_window):
        nodes = grower.step(nodes)
    assert grower.worst(nodes) < 2e-4


@pytest.mark.parametrize("pad", [False, True])
def test_an_opening_is_read_with_the_prompt(pad: bool) -> None:
    model = tiny_model("gemma", pad_text_left=pad)
    plain, cache = model.prefill(PROMPT), model.prefill(PROMPT, opening=[40, 41, 42])
    bos = [model.tokenizer.bos_token_id] * (plain.length - model.embed(PROMPT).shape[1])
    assert bool(bos) == pad  # one of each
    assert cache.length == plain.length + 3
    found = np.array(TreeDecoder(model.language_model, cache).logits(np.array([ROOT])))[0]
    np.testing.assert_allclose(found, np.array(model.score(PROMPT, [*bos, 40, 41, 42]))[-1], atol=2e-4)


def test_the_pool_grows_and_keeps_what_it_holds() -> None:
    grower = Grower(tiny_model("llama"), PROMPT, seed=3)
    early = grower.step(np.zeros(3, np.int32))
    while len(grower.paths) <= 2 * FIRST_CAPACITY:
        grower.step(np.full(60, early[1]))
    late = grower.step(np.array([early[0], early[2], len(grower.paths) - 1]))
    assert grower.worst(early) < 2e-4
    assert grower.worst(late) < 2e-4
    assert grower.decoder.is_decoded(np.array([0, late[0], late[2] + 1, 10**6])).tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_the_pool_holds_little_more_than_its_nodes() -> None:
    model = tiny_model("llama")
    grower = Grower(model, PROMPT, seed=5)
    prompt = model.prefill(PROMPT)
    while len(grower.paths) <= 2 * FIRST_CAPACITY:
        nodes = grower.step(np.zeros(60, np.int32))
    grower.decoder.logits(nodes)
    position = prompt.nbytes // prompt.length
    held = grower.decoder.nbytes - prompt.nbytes - len(nodes) * SPARE * position  # less the rows' suffixes
    assert held <= 1.25 * len(grower.paths) * (position + prompt.state.nbytes)


def test_the_prompt_is_held_once_whatever_the_number_of_rows() -> None:
    model = tiny_model("llama")
    long = Prompt("word " * 400, [Series("", WAVE)], "")
    prompt_bytes = model.prefill(long).nbytes

    def beside_the_prompt(rows: int) -> int:
        grower = Grower(model, long, seed=4)
        nodes = grower.step(np.zeros(rows, np.int32))
        grower.step(nodes)
        return grower.decoder.nbytes - prompt_bytes

    few, many = beside_the_prompt(2), beside_the_prompt(100)
    a_position = prompt_bytes // len(model.embed(long)[0])
    assert many - few <= 98 * (SPARE + 2) * a_position  # a row's own suffix, with room for more
