"""The tree as the page unfolds it: a run of nodes with one child each becomes one branch with one text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlx_tslm.search.tree import ROOT, Tree

if TYPE_CHECKING:
    from mlx_tslm.search import SearchResult


def list_branches(
    result: "SearchResult", tokenizer: Any, leaves: Mapping[int, Sequence[int]]
) -> dict[str, list[Any]]:
    """The branches of a result's tree as arrays; branch 0 is the prompt, and parents stand before children.

    Args:
        result: what the search found.
        tokenizer: decodes token ids.
        leaves: for each row of the list of completions, in order, the nodes where its completions end.

    Returns:
        parent: the branch it grows from (−1 for the prompt).
        text: of its tokens; of the prompt's, what all answers open with where the root was moved.
        tokens: how many tokens there are from the prompt to its end.
        first, log_prior: log p of its first token, and of all its tokens, after what stands before them.
        visits, value: rollouts through its end, and V̂ there.
        row: the row of the list of completions that ends here, or −1.

    Nodes that no scored rollout has passed through are left out.
    """
    tree = result.tree
    seen = tree.visits > 0
    seen[ROOT] = True
    children = np.bincount(tree.parent[1:][seen[1:]], minlength=tree.size)
    ends = np.flatnonzero(seen & ((children != 1) | (np.arange(tree.size) == ROOT)))
    number = {int(node): index for index, node in enumerate(ends)}
    row_of = {node: row for row, nodes in enumerate(leaves.values()) for node in nodes}
    texts = _Texts(tree, result.prefix, tokenizer)
    fields: dict[str, list[Any]] = {name: [] for name in ("parent", "text", "tokens", "first", "log_prior")}
    for node in ends.tolist():
        above, chain = node, []
        while above != ROOT and (above == node or above not in number):
            chain.append(float(tree.log_prior[above]))
            above = int(tree.parent[above])
        fields["parent"].append(number[above] if node != ROOT else -1)
        fields["text"].append(texts.between(above, node))
        fields["tokens"].append(int(tree.depth[node]))
        fields["first"].append(chain[-1] if chain else 0.0)
        fields["log_prior"].append(sum(chain))
    return fields | {
        "visits": tree.visits[ends].tolist(),
        "value": tree.value[ends].tolist(),
        "row": [row_of.get(node, -1) for node in ends.tolist()],
    }


class _Texts:
    """Texts of paths. Tokens are decoded after all others: one alone may be half a character, or lose a space."""

    def __init__(self, tree: Tree, prefix: Sequence[int], tokenizer: Any) -> None:
        self._tree, self._prefix, self._tokenizer = tree, list(prefix), tokenizer
        self._known: dict[int, str] = {}

    def between(self, above: int, node: int) -> str:
        """What the tokens after `above` and up to `node` add to the text."""
        before, whole = self._until(above) if node != ROOT else "", self._until(node)
        if whole.startswith(before):
            return whole[len(before) :]
        beyond = self._tree.depth[above]  # the tokenizer rewrote what went before
        return str(self._tokenizer.decode(self._tree.path(node)[beyond:], skip_special_tokens=True))

    def _until(self, node: int) -> str:
        if node not in self._known:
            path = self._prefix + self._tree.path(node)
            text = str(self._tokenizer.decode(path, skip_special_tokens=True)) if path else ""
            # Half a character at the end belongs to the branch that completes it.
            self._known[node] = text if self._tree.terminal[node] else text.rstrip("\ufffd")
        return self._known[node]
