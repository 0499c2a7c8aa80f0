"""One table of the peers: what other programs take for the same work, on the same weights, in the same run."""

from dataclasses import dataclass

from benchmarks.suite import search
from benchmarks.suite import torch as pytorch
from benchmarks.suite.measure import Spread, ratio, values
from benchmarks.suite.measurements import Measurements
from benchmarks.suite.tables import Rows, markdown, seconds_text, times_text, where_text


@dataclass(frozen=True)
class Peer:
    """Another program's way, and ours, in a case of a topic."""

    name: str
    work: str
    topic: str
    case: str
    theirs: str
    ours: str


PEERS = (
    Peer("mlx-lm, BatchGenerator", "a decode step", "search", "batch-step", search.PEER, search.SHARED),
    Peer("mlx-lm, its attention over a prompt copied for every row", "a decode step", "search", "decode-step",
         search.COPIED, search.SHARED),
    Peer("transformers, generate(num_return_sequences)", "the prompt and sampled answers", "torch", "torch-job",
         pytorch.GENERATE, pytorch.OURS),
    Peer("transformers, StaticCache", "a decode step", "torch", "torch-step", pytorch.STATIC, search.SHARED),
    Peer("transformers", "reading the prompt", "torch", "torch-prefill", pytorch.TORCH, pytorch.OURS),
    Peer("PyTorch, one rollout at a time with a KV cache", "an answer by MaxEnt-TS", "torch", "torch-search",
         pytorch.CACHED, pytorch.OURS),
    Peer("PyTorch, one rollout at a time without a cache (SpecDiffTree's way)", "an answer by MaxEnt-TS", "torch",
         "torch-search", pytorch.UNCACHED, pytorch.OURS),
)  # fmt: skip


def peers_table(one: Measurements) -> str:
    """A row a peer and size, or nothing where no peer was measured."""
    rows: Rows = []
    for peer in PEERS:
        for parameters, rounds in one.cases(peer.topic, peer.case):
            found = ratio(rounds, peer.theirs, peer.ours)
            if found is not None:
                seconds = [seconds_text(Spread.of(values(rounds, way))) for way in (peer.theirs, peer.ours)]
                rows.append((peer.name, peer.work, where_text(parameters), *seconds, times_text(found)))
    headings = ["peer", "what", "where", ">peer", ">mlx-tslm", ">peer over mlx-tslm (range, rounds)"]
    return markdown(headings, rows) if rows else ""
