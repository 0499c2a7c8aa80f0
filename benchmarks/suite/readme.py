"""`bench table`: the generated parts of the documentation, between markers, and the plots beside them."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from benchmarks.suite import comparisons, peers, plots, profiles, scripts, speeds, tables
from benchmarks.suite.measurements import TOPICS, Measurements
from mlx_tslm.errors import TSLMError
from mlx_tslm.files import write_atomically

_MEMORY = "added_memory"


def rendered(root: Path) -> dict[Path, str]:
    """The text that every generated file should have.

    Args:
        root: the checkout: `benchmarks/results`, `benchmarks/README.md` and `README.md` lie under it.

    Raises:
        TSLMError: there are no results, or of another schema version, or benchmarks/README.md lacks a marker.
    """
    results = root / "benchmarks/results"
    folders = sorted({path.parent for topic in TOPICS for path in results.glob(f"*/{topic}.jsonl")})
    if not folders:
        raise TSLMError(f"there are no results in {results}; make some with `mlx-tslm bench run`")
    machines, accuracy = [Measurements(folder) for folder in folders], speeds.demo_accuracy(results)
    sections = {
        "machine": {one.name: tables.machine_table(one) for one in machines},
        "conversion": {one.name: tables.conversion_table(one) for one in machines},
        "decoding": {one.name: tables.decoding_table(one) for one in machines},
        "search": {one.name: comparisons.search_table(one) for one in machines},
        "torch": {one.name: comparisons.torch_table(one) for one in machines},
        "speed": {one.name: speeds.speed_table(one) for one in machines},
        "methods": {one.name: speeds.methods_table(one, accuracy) for one in machines},
        "peers": {one.name: peers.peers_table(one) for one in machines},
        "profile": {one.name: profiles.profile_table(one) for one in machines},
        "scaling": {one.name: _scaling(one) for one in machines},
        "cost": {one.name: tables.cost_table(one) for one in machines},
    }
    page, front = root / "benchmarks/README.md", root / "README.md"
    blocks = {f"bench-table:{name}": _by_machine(texts) for name, texts in sections.items()}
    blocks["bench-table:predictions"] = tables.predictions_table()
    blocks["bench-table:scripts"] = scripts.scripts_table(results)
    files = {page: _between_markers(page, blocks)}
    if front.exists() and "<!-- bench-table:start -->" in front.read_text():
        files[front] = _between_markers(front, {"bench-table": comparisons.summary_table(machines)})
    for one in machines:
        if one.topics["scaling"].samples:
            files[_plot(one, "seconds", root)] = plots.scaling_plot(one, "seconds", "seconds of a whole search", 1)
            title = "memory it adds to the weights, MB"
            files[_plot(one, "memory", root)] = plots.scaling_plot(one, _MEMORY, title, 1e6)
    return files


def write(root: Path) -> list[Path]:
    """Bring every generated file up to date, and plots as PNG where resvg is installed; return what changed."""
    changed = stale(root)
    for path, text in rendered(root).items():
        if path in changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
        picture = path.with_suffix(".png")
        if path.suffix == ".svg" and (path in changed or not picture.exists()) and find_spec("resvg_py"):
            picture.write_bytes(plots.png(text))
            changed.append(picture)
    return changed


def stale(root: Path) -> list[Path]:
    """The generated files that differ from their raw data."""
    return [path for path, text in rendered(root).items() if not path.exists() or path.read_text() != text]


def _plot(one: Measurements, what: str, root: Path) -> Path:
    return root / "benchmarks" / "plots" / f"{one.name}-{what}.svg"


def _scaling(one: Measurements) -> str:
    text = tables.scaling_table(one)
    images = [f"![{what} as sizes grow](plots/{one.name}-{what}.svg)" for what in ("seconds", "memory")]
    return "\n\n".join([text, *images]) if text else ""


def _by_machine(texts: Mapping[str, str]) -> str:
    """One block a machine, with its name where there are several."""
    shown = {name: text for name, text in texts.items() if text}
    return "\n\n".join(f"**{name}**\n\n{text}" if len(texts) > 1 else text for name, text in shown.items())


def _between_markers(path: Path, blocks: Mapping[str, str]) -> str:
    text = path.read_text() if path.exists() else ""
    for name, block in blocks.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        pattern = re.compile(f"({re.escape(start)}\n).*?({re.escape(end)})", re.DOTALL)
        if not pattern.search(text):
            raise TSLMError(f"{path} lacks the lines `{start}` and `{end}`; put them where the table belongs")
        body = block + "\n" if block else ""
        text = pattern.sub(rf"\g<1>{body.replace(chr(92), chr(92) * 2)}\g<2>", text)
    return text
