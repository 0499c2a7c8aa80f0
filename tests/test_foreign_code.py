"""A folder's Python is never run and never asked about, whatever its files say."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import write_base, write_checkpoint

from mlx_tslm.cli import main

EVIL = """
from pathlib import Path
Path({marker!r}).write_text("ran")
class Evil:
    @classmethod
    def from_pretrained(cls, *args, **kwargs): return cls()
"""
AUTO_MAP = {
    "AutoConfig": "evil.Evil",
    "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    "AutoModel": "evil.Evil",
    "AutoModelForCausalLM": "evil.Evil",
}
TOKENIZER, CONFIG = "tokenizer_config.json", "config.json"
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "tokenizer": {TOKENIZER: {"auto_map": AUTO_MAP}},
    "slow tokenizer alone": {TOKENIZER: {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}},
    "tokenizer, old form": {TOKENIZER: {"auto_map": ["evil.Evil", None]}},
    "unknown class": {TOKENIZER: {"auto_map": AUTO_MAP, "tokenizer_class": "Evil"}},
    "another repository's": {TOKENIZER: {"auto_map": {"AutoTokenizer": ["me/evil--evil.Evil", None]}}},
    "config": {CONFIG: {"auto_map": AUTO_MAP}},
    "config's tokenizer": {CONFIG: {"auto_map": AUTO_MAP, "tokenizer_class": "Evil"}, TOKENIZER: {}},
    "both": {CONFIG: {"auto_map": AUTO_MAP, "model_file": "evil.py"}, TOKENIZER: {"auto_map": AUTO_MAP}},
    "generation": {"generation_config.json": {"custom_generate": "evil.py", "auto_map": AUTO_MAP}},
    "chat template": {TOKENIZER: {"chat_template_type": "....evil", "tool_parser_type": "....evil"}},
}


def edit(folder: Path, changes: dict[str, dict[str, Any]]) -> Path:
    """Merge keys into a folder's JSON files, put the code beside them, and return where it would leave its mark."""
    marker = folder.parent / "ran"
    for name in ("evil.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(EVIL.format(marker=str(marker)))
    for name, extra in changes.items():
        file = folder / name
        known = json.loads(file.read_text()) if file.exists() else {}
        if "tokenizer_class" in extra or not extra:
            known.pop("tokenizer_class", None)
        file.write_text(json.dumps(known | extra))
    return marker


Check = Callable[..., None]
Folders = tuple[Path, Path, Path]  # a base LLM, a checkpoint, and the model converted from them


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the command line with somebody who says yes to everything; nothing runs, nothing asks."""

    def checked(marker: Path, *arguments: object) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 50))
        code = main([str(argument) for argument in arguments])
        said = "".join(capsys.readouterr())
        assert not marker.exists(), "the folder's code was run"
        assert "[y/N]" not in said and "Traceback" not in said
        assert code == 0 or (code == 2 and said.count("error:") == 1), said

    return checked


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A base LLM's folder, a checkpoint, and the model converted from them."""
    folder = tmp_path_factory.mktemp("sound")
    base, checkpoint = write_base("llama", folder / "base"), write_checkpoint("llama", folder / "model.pt")
    assert main(["convert", str(checkpoint), "--llm", str(base), "-o", str(folder / "model")]) == 0
    return base, checkpoint, folder / "model"


def copied(source: Path, target: Path) -> Path:

    shutil.copytree(source, target)
    return target


@pytest.mark.parametrize("way", WAYS)
def test_a_models_code_is_not_run(way: str, converted: Folders, tmp_path: Path, check: Check) -> None:
    model = copied(converted[2], tmp_path / "model")
    marker = edit(model, WAYS[way])
    (tmp_path / "s.csv").write_text("x\n" + "\n".join(map(str, range(32))))
    check(
        marker, "generate", "--model", model, "--stage", "stage2", "--series", tmp_path / "s.csv", "--max-tokens", 2
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_bases_code_is_not_run(way: str, converted: Folders, tmp_path: Path, check: Check) -> None:
    base = copied(converted[0], tmp_path / "base")
    marker = edit(base, WAYS[way])
    check(marker, "convert", converted[1], "--llm", base, "-o", tmp_path / "out", "--verify")


@pytest.mark.parametrize("way", ["both", "unknown class"])
def test_training_runs_no_code(way: str, converted: Folders, tmp_path: Path, check: Check) -> None:
    base = copied(converted[0], tmp_path / "base")
    marker = edit(base, WAYS[way])
    (tmp_path / "mine.toml").write_text(
        f'model = "{base}"\nsource = "synthetic"\n[defaults]\nvalidation_samples = 2\nbatch_size = 2\n'
        "[[stages]]\nname = 'stage1'\nsamples = { stage1 = 2 }\nlr_projector = 1e-4\n"
    )
    check(marker, "train", tmp_path / "mine.toml", "-o", tmp_path / "run")
