"""Evaluations: what they write, how they go on after a stop, and that several processes find what one finds."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tiny import tiny_model

from mlx_tslm import data, evaluation, stages
from mlx_tslm.cli import main
from mlx_tslm.completion import Completion
from mlx_tslm.errors import TSLMError
from mlx_tslm.evaluation import answering, run, samples
from mlx_tslm.evaluation.figures import figures as compute
from mlx_tslm.generation import generate
from mlx_tslm.models.row_decoder import BatchResponse
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.search import SearchConfig
from mlx_tslm.stages.ablation import ablated

pytest.importorskip("sklearn")

FEW = SearchConfig(num_rollouts=4, width=3, max_tokens=6)


class Rows(list[dict[str, Any]]):
    """A data set in memory. A row without columns is malformed."""

    def __init__(self, stage: str, rows: list[dict[str, Any]]) -> None:
        super().__init__(rows)
        self.stage, self.split = stages.get(stage), "test"
        self.malformed: list[str] = []

    def get(self, index: int) -> dict[str, Any] | None:
        if not self[index]:
            self.malformed.append(f"memory, line {index}")
            return None
        return self[index]


def trends(count: int) -> Rows:
    rng = np.random.default_rng(1)
    slopes = rng.permutation(count) % 3 - 1
    return Rows(
        "stage1",
        [
            {
                "Task": "Trend",
                "Question": "Which trend? (a) none (b) up (c) down",
                "Answer": f"({'cab'[slope + 1]})",
                "Series": slope * np.arange(40 + 4 * n) + rng.standard_normal(40 + 4 * n),
            }
            for n, slope in enumerate(slopes.tolist())
        ],
    )


@pytest.fixture(scope="module")
def model() -> SoftPromptModel:
    return tiny_model("llama")


def records(folder: Path, method: str = "greedy") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{method}.jsonl").read_text().splitlines()]


def without_costs(folder: Path) -> dict[str, Any]:
    figures = json.loads((folder / "metrics.json").read_text())
    for method in figures["methods"].values():
        assert method["spent"].pop("seconds") > 0
    return figures


def test_what_a_greedy_evaluation_writes(
    model: SoftPromptModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = trends(5)
    rows.insert(2, {})
    rows[4] = rows[4] | {"Answer": "none of them"}
    with pytest.raises(TSLMError, match="1 of 6 rows are malformed"):
        evaluation.evaluate(model, rows, tmp_path / "out", ["greedy"], FEW)
    monkeypatch.setattr(run, "_MOST_MALFORMED", 0.5)
    result = evaluation.evaluate(model, rows, tmp_path / "out", ["greedy"], FEW)
    found = records(tmp_path / "out")
    assert [one["index"] for one in found] == [0, 1, 3, 4, 5]
    for one in found:
        sample = rows.stage.from_row(rows[one["index"]])
        text = generate(model, sample.prompt, FEW.max_tokens).strip()
        assert one["answers"] == {"answer": {"text": text, "answer": sample.prompt.parse(text)}}
        assert (one["reference"], one["tokens"]) == (sample.answer, FEW.max_tokens)
    assert result == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert result is not None and result["malformed"] == ["memory, line 2"]
    assert result["budget"] == {"num_rollouts": 4, "max_tokens": 6, "tokens": 24}
    figures = result["methods"]["greedy"]
    assert (figures["samples"], figures["unlabelled"]) == (5, 1)
    assert set(figures["metrics"]["answer"]["accuracy"]) == {"value", "low", "high"}
    assert (tmp_path / "out" / "confusion-greedy.svg").read_text().startswith("<svg")


def test_a_stopped_evaluation_goes_on(model: SoftPromptModel, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    evaluation.evaluate(model, trends(7), whole, ["greedy"], FEW)

    def stop(_: str, finished: int, __: int) -> None:
        if finished == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(model, trends(7), stopped, ["greedy"], FEW, progress=stop)
    assert len(records(stopped)) == 3
    with (stopped / "greedy.jsonl").open("a") as file:
        file.write('{"index": 6, "gold": "(')  # as a killed process leaves it
    seen: list[tuple[int, int]] = []
    evaluation.evaluate(
        model, trends(7), stopped, ["greedy"], FEW, progress=lambda _, done, of: seen.append((done, of))
    )
    assert seen == [(at, 7) for at in range(3, 8)]
    assert without_costs(stopped) == without_costs(whole)
    assert [one["answers"] for one in records(stopped)] == [one["answers"] for one in records(whole)]


def test_another_evaluation_in_the_folder_is_refused(model: SoftPromptModel, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def again(out: Path = out, count: int = 2, model: SoftPromptModel = model, **changes: Any) -> None:
        options = {"methods": ["greedy"], "ablate": None} | {
            key: changes.pop(key) for key in ("methods", "ablate") if key in changes
        }
        evaluation.evaluate(
            model, trends(count), out, config=SearchConfig(**{"max_tokens": 2, **changes}), **options
        )

    again()
    again(seed=5)  # greedy answers don't depend on it
    again(methods=["sample"], seed=5)
    with pytest.raises(TSLMError, match="max_tokens 2, not 3; choose another --output"):
        again(max_tokens=3)
    with pytest.raises(TSLMError, match="sample with seed 5, not 6"):
        again(methods=["sample"], seed=6)
    with pytest.raises(TSLMError, match="ablate None, not 'zero'"):
        again(ablate="zero")
    with pytest.raises(TSLMError, match="data "):
        again(count=3)  # other series, from the first sample on
    with pytest.raises(TSLMError, match="model "):
        again(model=tiny_model("llama", lora=4))
    (tmp_path / "file").touch()
    with pytest.raises(TSLMError, match="not an evaluation's folder"):
        again(tmp_path / "file")
    (out / "greedy.jsonl").write_text('{"index": 0}\nnonsense\n')
    with pytest.raises(TSLMError, match=r"greedy\.jsonl, line 2, is not a record"):
        again()
    (out / "config.json").write_text("[]")
    with pytest.raises(TSLMError, match=r"config\.json"):
        again()


def test_searches_give_two_answers_and_keep_to_the_budget(model: SoftPromptModel, tmp_path: Path) -> None:
    methods = ["greedy", "maxent-ts", "best-of-n", "dts*"]
    result = evaluation.evaluate(model, trends(3), tmp_path, methods[:2], FEW)
    result = evaluation.evaluate(model, trends(3), tmp_path, methods[2:], FEW)
    assert result is not None and list(result["methods"]) == methods  # earlier ones are still there
    assert (tmp_path / "dts-star.jsonl").exists() and (tmp_path / "confusion-dts-star-best-rewarded.svg").exists()
    for method in methods[1:]:
        for one in records(tmp_path, method.replace("*", "-star")):
            assert set(one["answers"]) == {"answer", "best-rewarded"}
            assert 0 < one["tokens"] <= result["budget"]["tokens"]
    assert set(result["methods"]["maxent-ts"]["metrics"]) == {"answer", "best-rewarded"}


def test_limits_agree_about_what_they_share(model: SoftPromptModel, tmp_path: Path) -> None:
    rows = trends(6)
    few = Rows("stage1", rows[:2])
    evaluation.evaluate(model, few, tmp_path, ["greedy"], FEW)
    more = evaluation.evaluate(model, rows, tmp_path, ["greedy"], FEW)
    fewer = evaluation.evaluate(model, few, tmp_path, ["greedy"], FEW)
    assert more is not None and more["methods"]["greedy"]["samples"] == 6
    assert fewer is not None and fewer["methods"]["greedy"]["samples"] == 2
    assert len(records(tmp_path)) == 6


@pytest.mark.parametrize("ablate", list(evaluation.ABLATIONS))
def test_ablations(ablate: str) -> None:
    rows = trends(4)
    plain, changed = (list(samples.items(rows, range(4), how)) for how in (None, ablate))
    for before, after, swapped in zip(plain, changed, plain[2:] + plain[:2], strict=True):
        assert (after.gold, after.question.pre, after.question.post) == (
            before.gold,
            before.question.pre,
            before.question.post,
        )
        (old,), (new,), (other,) = before.question.series, after.question.series, swapped.question.series
        if ablate == "swap":
            assert new.text == other.text and np.array_equal(new.values, other.values)
            continue
        assert new.text == old.text and not np.array_equal(new.values, old.values)
        assert (
            not new.values.any()
            if ablate == "zero"
            else new.values.std() > 1.5 * old.values.std()
            if ablate == "noise"
            else np.array_equal(np.sort(new.values), np.sort(old.values))
        )
    again = ablated(plain[1].question, ablate, 1, plain[3].question)
    assert np.array_equal(again.series[0].values, changed[1].question.series[0].values)


def test_swapping_needs_another_sample() -> None:
    with pytest.raises(TSLMError, match="only one sample"):
        list(samples.items(trends(1), [0], "swap"))


def test_captions(model: SoftPromptModel, tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    rng = np.random.default_rng(0)
    rows = Rows("stage2", [{"series": rng.random(30), "caption": f"It rises, {n} times."} for n in range(3)])
    result = evaluation.evaluate(model, rows, tmp_path, ["greedy"], FEW)
    assert result is not None
    scores = result["methods"]["greedy"]["metrics"]["answer"]
    assert set(scores) == {"bleu", "rouge1", "rouge2", "rougeL", "perplexity"}
    one, sample = records(tmp_path)[0], rows.stage.from_row(rows[0])
    bos, *tokens = model.tokenizer.encode(sample.answer)
    tokens.append(model.tokenizer.eos_token_id)
    logits = model.score(sample.prompt, [bos, *tokens])[1:-1]
    logp = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    expected = -sum(logp[at, token].item() for at, token in enumerate(tokens))
    assert one["nll_tokens"] == len(tokens) and one["nll"] == pytest.approx(expected, rel=1e-4)


def test_ecg_has_labels_and_figures_by_template(model: SoftPromptModel, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    allowed = stages.ecg.answers_of(1)
    rows = Rows(
        "stage5",
        [
            {
                "signals": rng.standard_normal((2, 40)),
                "question": "Which?",
                "template_id": str(template),
                "rationale": f"Because. Answer: {allowed[0].upper()}.",
            }
            for template in (1, 2, 1)
        ],
    )
    asked = list(samples.items(rows, range(3)))
    assert [one.group for one in asked] == [1, 2, 1]
    assert asked[0].question.labels == allowed and asked[0].gold == allowed[0]
    result = evaluation.evaluate(model, rows, tmp_path, ["greedy"], SearchConfig(max_tokens=2, width=2))
    assert result is not None
    templates = result["methods"]["greedy"]["templates"]["answer"]
    assert templates["1"]["samples"] == 2


@pytest.mark.parametrize("method", ["greedy", "maxent-ts"])
def test_an_impossible_sample_is_named(model: SoftPromptModel, tmp_path: Path, method: str) -> None:
    rows = trends(3)
    rows[1] = rows[1] | {"Series": np.zeros(5000)}
    with pytest.raises(TSLMError, match=r"^sample 1: a series of 5000 samples"):
        evaluation.evaluate(model, rows, tmp_path / method, [method], FEW)
    rows[1] = {"Task": "Trend"}
    with pytest.raises(TSLMError, match=r"^sample 1 of stage1, test: the row has no column"):
        evaluation.evaluate(model, rows, tmp_path / method, [method], FEW)


def test_what_does_not_exist_is_refused(model: SoftPromptModel, tmp_path: Path) -> None:
    for options, says in (
        ({"methods": ["guess"]}, "greedy, sample, maxent-ts"),
        ({"ablate": "eat"}, "zero, shuffle"),
    ):
        with pytest.raises(TSLMError, match=says):
            evaluation.evaluate(model, trends(1), tmp_path, **options)  # type: ignore[arg-type]
    with pytest.raises(TSLMError, match="no sample"):
        evaluation.evaluate(model, Rows("stage1", [{}]), tmp_path)
    assert answering.METHODS.index("maxent-ts") >= 0 and not list(tmp_path.iterdir())


@pytest.fixture
def command(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`mlx-tslm eval` on the data set in memory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load", lambda *_, **__: trends(4))

    def run(*options: str) -> int:
        fixed = ("--stage", "tsqa", "--max-tokens", "4", "--num-rollouts", "4", "--width", "2")
        return main(["eval", "--model", str(tiny_folder), *fixed, *options])

    return run


def test_command(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--method", "greedy", "--method", "best-of-n") == 0
    printed = capsys.readouterr()
    assert all(
        words in printed.out
        for words in ("macro f1 published", "best-of-n", "best-rewarded", "16 tokens for every")
    )
    out = Path("eval/model-stage1-test")
    assert {"config.json", "greedy.jsonl", "best-of-n.jsonl", "metrics.json"} <= {
        file.name for file in out.iterdir()
    }
    assert command("--ablate", "zero") == 0
    assert Path("eval/model-stage1-test-zero/metrics.json").exists()
    assert command("--output", str(out), "--seed", "3", "--method", "best-of-n") == 2
    assert "best-of-n with seed 0, not 3" in " ".join(capsys.readouterr().err.split())
    assert command("--method", "guess") == 2
    assert command("--source", "thin air") == 2


def says(texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the model give these answers, whatever it is asked."""

    def answered(model: Any, prompts: Any, *_: Any, **__: Any) -> Any:
        for index, (text, _) in enumerate(zip(texts, prompts, strict=True)):
            yield BatchResponse(index, Completion(text, (1,), 0.0, None, True), 9, 1.0, 0.1)

    monkeypatch.setattr(answering, "generate_batch", answered)


def test_an_option_counts_by_its_letter_and_by_its_words(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = data.load("stage1", "test", source="synthetic", size=6)
    truths, letters, wrong = [], [], []
    for row in rows:
        options = rows.stage.from_row(row).prompt.labels
        assert isinstance(options, dict) and tuple(options) == ("(a)", "(b)", "(c)")
        letter = next(name for name, words in options.items() if words == row["Answer"])
        truths.append(row["Answer"])
        letters.append(letter)
        wrong.append(next(words for words in options.values() if words != row["Answer"]))
    # In words, by letter, by both, wrong, none, and an option that was not offered.
    texts = [truths[0], letters[1], f"{letters[2]} {truths[2]}.", wrong[3], "", "a purple trend"]
    says(texts, monkeypatch)
    out = tmp_path / "out"
    asked = ["eval", "--model", str(tiny_folder), "--stage", "stage1", "--source", "synthetic", "--limit", "6"]
    assert main([*asked, "--output", str(out)]) == 0
    assert "stage1, synthetic test split" in capsys.readouterr().out
    found = records(out)
    assert [one["gold"] for one in found] == letters
    assert [one["answers"]["answer"]["answer"] for one in found[:3]] == letters[:3]
    figures = json.loads((out / "metrics.json").read_text())["methods"]["greedy"]
    assert figures["unlabelled"] == 0
    assert figures["confusion"]["answer"]["classes"] == ["(a)", "(b)", "(c)", "other"]
    shares = {name: one["value"] for name, one in figures["metrics"]["answer"].items()}
    assert (shares["accuracy"], shares["answered"]) == (pytest.approx(3 / 6), pytest.approx(4 / 6))
    assert shares["accuracy_published"] == pytest.approx(4 / 6)  # the empty one too
    again, _ = compute(stages.get("stage1"), found)  # from the records alone
    assert again == figures


def test_the_published_rules_look_at_the_text_where_the_truth_is_a_letter(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    golds = [row["Answer"] for row in trends(4)]
    words = {"(a)": "none", "(b)": "up", "(c)": "down"}
    says([golds[0], words[golds[1]], f"{golds[2]} {words[golds[2]]}", ""], monkeypatch)
    assert command("--output", "out") == 0
    scores = json.loads(Path("out/metrics.json").read_text())["methods"]["greedy"]["metrics"]["answer"]
    assert scores["accuracy"]["value"] == 0.75
    assert scores["accuracy_published"]["value"] == 0.5  # the letter, and the empty one


def test_a_series_beyond_the_model_has_advice_for_data_sets(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = trends(3)
    rows[1] = rows[1] | {"Series": np.arange(5000.0)}
    monkeypatch.setattr(data, "load", lambda *_, **__: rows)
    for method in ("greedy", "best-of-n"):
        assert command("--method", method, "--output", method) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "sample 1: a series of 5000 samples" in said and "a model trained on stage1" in said
        assert "--rate" not in said


def test_command_is_interrupted_cleanly(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = answering.generate_batch, 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        for response in real(*args, **kwargs):
            if (count := count + 1) == 3:
                raise KeyboardInterrupt
            yield response

    monkeypatch.setattr(answering, "generate_batch", interrupted)
    assert command() == 130
    assert "the same command goes on" in " ".join(capsys.readouterr().err.split())
    assert len(records(Path("eval/model-stage1-test"))) == 2
    assert command() == 0
    assert "greedy: 2 of 4 samples are in" in capsys.readouterr().err


SCRIPT = """
import os, signal, sys
import test_evaluation as tests
from mlx_tslm import evaluation
from mlx_tslm.system.distributed import group

model, (together, killed) = tests.tiny_model("llama"), sys.argv[1:]

def die(_, finished, total):
    if group().rank() == 1 and finished == 2:
        os.kill(os.getpid(), signal.SIGKILL)

evaluation.evaluate(model, tests.trends(9), together, ["greedy"], tests.FEW)
evaluation.evaluate(model, tests.trends(9), killed, ["greedy"], tests.FEW, progress=die)
"""


def test_two_processes_find_what_one_does_and_a_killed_one_loses_nothing(
    model: SoftPromptModel, tmp_path: Path
) -> None:
    launch = shutil.which("mlx.launch", path=str(Path(sys.executable).parent))
    if launch is None or not mx.distributed.is_available():
        pytest.skip("mlx.launch, or a backend for it, is not there")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    alone, together, killed = (tmp_path / name for name in ("alone", "together", "killed"))
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [
            launch,
            "-n",
            "2",
            "--backend",
            "ring",
            sys.executable,
            *map(str, (script, together, killed)),
        ],
        env=os.environ | {"PYTHONPATH": here, "MKL_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    evaluation.evaluate(model, trends(9), alone, ["greedy"], FEW)
    assert (together / "metrics.json").exists(), done.stderr
    assert without_costs(together) == without_costs(alone)
    assert [one["answers"] for one in records(together)] == [one["answers"] for one in records(alone)]
    assert sorted(file.name for file in together.iterdir()) == sorted(file.name for file in alone.iterdir())

    assert not (killed / "metrics.json").exists()
    finished = [json.loads(line)["index"] for line in (killed / "greedy.rank1.jsonl").read_text().splitlines()]
    assert len(finished) == 2 and all(index % 2 == 1 for index in finished)
    asked: list[int] = []
    evaluation.evaluate(model, trends(9), killed, ["greedy"], FEW, progress=lambda _, at, __: asked.append(at))
    assert asked[0] >= 2  # what they had finished is not done again
    assert without_costs(killed) == without_costs(alone)
    assert not list(killed.glob("*.rank*"))
