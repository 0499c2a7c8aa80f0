"""Damaged and edited model folders: used, or refused by one line that names the file; never a traceback."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from damage import VALUES, Damage, at_random, damaged, edited, fault, of_folder, of_safetensors, written
from tiny import write_base, write_checkpoint

import mlx_tslm
from mlx_tslm import conversion
from mlx_tslm.cli import main
from mlx_tslm.conversion.base import open_base
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.tokenizer import read_tokenizer

FILES = (
    "config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json",
    "model.safetensors.index.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A checkpoint, a base LLM, and the small model converted from them."""
    folder = tmp_path_factory.mktemp("sound")
    base = write_base("llama", folder / "base")
    (base / "generation_config.json").write_text('{"eos_token_id": [383], "temperature": 0.6, "top_p": 0.9}')
    checkpoint = write_checkpoint("llama", folder / "tiny.pt", max_patches=32)
    conversion.convert(checkpoint, folder / "model", llm=str(base))
    return checkpoint, base, folder / "model"


def sample(damages: Iterator[Damage], number: int, seed: str) -> list[Damage]:
    """Some of them, the same each time."""
    everything = list(damages)
    return random.Random(seed).sample(everything, min(number, len(everything)))


def test_safetensors(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Every damage to the weights there is a name for: cut, empty, with a header that lies."""
    faults = [fault(folders[2], damage, tmp_path / "model", mlx_tslm.load) for damage in of_safetensors()]
    assert len(faults) > 60 and not [one for one in faults if one]


@pytest.mark.parametrize("file", FILES)
def test_json(file: str, folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Fields removed, negative, 0, text, fractional, huge, nested; files halved, missing, of another kind."""
    damages = sample((one for one in of_folder(folders[2]) if one.file == file), 60, file)
    faults = [fault(folders[2], damage, tmp_path / "model", mlx_tslm.load) for damage in damages]
    assert len(faults) > 15 and not [one for one in faults if one]


def test_changed_at_random(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    damages = [at_random(folders[2], seed) for seed in range(60)]
    faults = [fault(folders[2], damage, tmp_path / "model", mlx_tslm.load) for damage in damages]
    assert not [one for one in faults if one]


def test_a_base(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """The same of a base LLM's folder, as `convert` and `train` read it."""

    def use(folder: Path) -> None:
        base = open_base(folder, "base")
        read_tokenizer(folder, base.config)
        base.weights()

    damages = sample((one for one in of_folder(folders[1])), 120, "base")
    damages += [at_random(folders[1], seed) for seed in range(20)]
    faults = [fault(folders[1], damage, tmp_path / "base", use) for damage in damages]
    assert not [one for one in faults if one]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (edited("config.json", ("text_config", "num_hidden_layers"), "", 1_000_000), "num_hidden_layers"),
        (edited("config.json", ("text_config", "num_hidden_layers"), "", 1000), "is 1000, but the weights have 3"),
        (edited("config.json", ("encoder_config", "num_hidden_layers"), "", 5), "is 5, but the weights have 6"),
        (edited("config.json", ("text_config", "hidden_size"), "", 10**30), "hidden_size"),
        (edited("config.json", ("text_config", "rms_norm_eps"), "", VALUES["nan"]), "rms_norm_eps"),
        (edited("config.json", ("stage",), "", "stage9"), "config.json: stage"),
        (edited("tokenizer_config.json", ("bos_token",), "", 7), "tokenizer_config.json: bos_token"),
        (edited("tokenizer_config.json", ("eos_token",), "", {}), "tokenizer_config.json: eos_token"),
        (edited("tokenizer.json", ("normalizer",), "", 7), "tokenizer.json: normalizer"),
        (edited("tokenizer.json", ("model", "unk_token"), "", 7), "tokenizer.json: model.unk_token"),
        (written("tokenizer_config.json", "", b"{"), "tokenizer_config.json cannot be read"),
    ],
)  # fmt: skip
def test_the_field_is_named(
    damage: Damage, says: str, folders: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the front door, with exit code 2."""
    model = damaged(folders[2], damage, tmp_path / "model")
    (tmp_path / "s.csv").write_text("x\n1\n2\n3\n4\n")
    code = main(["generate", "--model", str(model), "--stage", "stage2", "--series", str(tmp_path / "s.csv")])
    *_, last = capsys.readouterr().err.strip().split("\n")
    assert code == 2 and last.startswith("error: ") and says in last


def test_what_is_sound_is_used(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """The tests above can fail: an undamaged folder loads, and a refusal that names nothing is a fault."""
    sound = Damage("nothing", "config.json", lambda path: None)
    assert fault(folders[2], sound, tmp_path / "model", mlx_tslm.load) == ""

    def refuse(folder: Path) -> None:
        raise TSLMError("no")

    def fail(folder: Path) -> None:
        json.loads("{")

    assert "no" in fault(folders[2], sound, tmp_path / "model", refuse)
    assert "JSONDecodeError" in fault(folders[2], sound, tmp_path / "model", fail)
