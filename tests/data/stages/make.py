"""Make the golden prompts in this folder, by OpenTSLM's own data set classes.

Run in an environment with torch, datasets, pandas and SciPy, OpenTSLM's `src` on PYTHONPATH, from the repository's
root; SHARED is the folder with the real recordings (`ecg/`, `ecgqa/`, `forecast/`, `har/`):

    PYTHONPATH=OpenTSLM/src python tests/data/stages/make.py SHARED OPENTSLM_COMMIT

It writes `rows.json` (what `Stage.from_row` gets), `golden.json` (the original's texts, and where this came from),
`golden.npz` (its values, float32, one array a series) and `ecg.hea`/`ecg.dat` (10 s at 500 Hz of PTB's s0010_re,
12 leads; Open Data Commons Attribution License 1.0).
"""

import csv
import importlib.util
import json
import math
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import pandas
import torch
from scipy.signal import resample_poly

# OpenTSLM's package file imports every model, Flamingo's dependencies included; the data sets need none of it.
# Nor is anything downloaded, and the signals are put into the cache that the original looks into first.
package = types.ModuleType("opentslm")
package.__path__ = list(importlib.util.find_spec("opentslm").submodule_search_locations)
sys.modules["opentslm"] = package
for unused in ("wfdb", "requests", "sklearn", "sklearn.model_selection"):
    sys.modules[unused] = types.ModuleType(unused)
sys.modules["sklearn.model_selection"].train_test_split = None

from opentslm.time_series_datasets.ecg_qa import ecgqa_loader  # noqa: E402
from opentslm.time_series_datasets.ecg_qa.ECGQACoTQADataset import ECGQACoTQADataset  # noqa: E402
from opentslm.time_series_datasets.har_cot.har_cot_loader import parse_time_series  # noqa: E402
from opentslm.time_series_datasets.har_cot.HARCoTQADataset import HARCoTQADataset  # noqa: E402
from opentslm.time_series_datasets.m4.M4QADataset import M4QADataset  # noqa: E402
from opentslm.time_series_datasets.sleep.SleepEDFCoTQADataset import SleepEDFCoTQADataset  # noqa: E402
from opentslm.time_series_datasets.TSQADataset import TSQADataset  # noqa: E402

HERE = Path(__file__).parent
LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")


def main() -> None:
    shared, commit = Path(sys.argv[1]), sys.argv[2]
    ecg = ecg_record(shared / "ecg" / "s0010_re.dat")
    rows = {
        "tsqa": tsqa_rows(shared),
        "m4": m4_rows(shared),
        "har": har_rows(shared),
        "sleep": sleep_rows(shared),
        "ecg": ecg_rows(ecg),
    }
    template_answers(shared)
    ECGQACoTQADataset._ecg_data_cache["ecg.dat"] = (ecg / 1000.0, "500Hz", "100Hz")

    texts: dict[str, list] = {}
    values = {}
    for stage, stage_rows in rows.items():
        texts[stage] = []
        for index, row in enumerate(stage_rows):
            sample = ORIGINAL[stage](row, f"{stage}-{index}")
            texts[stage].append(
                {
                    "pre": sample["pre_prompt"],
                    "series": sample["time_series_text"],
                    "post": sample["post_prompt"],
                    "answer": sample["answer"],
                }
            )
            for number, series in enumerate(sample["time_series"]):
                values[f"{stage}-{index}-{number}"] = np.asarray(series, dtype=np.float32)
    origin = {
        "opentslm": commit,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pandas": pandas.__version__,
        "made by": "tests/data/stages/make.py",
    }
    (HERE / "rows.json").write_text(json.dumps(rows, ensure_ascii=False, indent=0))
    (HERE / "golden.json").write_text(json.dumps({"origin": origin, **texts}, ensure_ascii=False, indent=1))
    np.savez_compressed(HERE / "golden.npz", **values)


def tsqa_rows(shared: Path) -> list[dict]:
    rng = np.random.default_rng(0)
    airline = column(shared / "forecast" / "Airline.csv")
    question = (  # a row of the published data set
        "Given the following definitions:\n"
        "Constant trend: The time series does not show any significant increase or decrease over time.\n"
        "Upward trend: The time series consistently increases over time.\n"
        "Downward trend: The time series consistently decreases over time.\n"
        "Select one of the following answers that best describes the provided time series:\n"
        "(a) This time series has a constant trend.\n(b) This time series has an upward trend.\n"
        "(c) This time series has a downward trend.\nOnly answer (a), (b), or (c)."
    )
    large = (12345.678 + 3 * rng.normal(size=513)).tolist()
    return [
        {"Task": "Trend", "Question": question, "Answer": "(b)", "Series": json.dumps(airline)},
        {
            "Task": "Outlier",
            "Question": " \n\tIs it  flat?\n ",
            "Answer": " (a)\n",
            "Series": json.dumps([5.0] * 7),
        },
        {"Task": "Volatility", "Question": "Why?", "Answer": "(c)", "Series": json.dumps(large)},
        {"Task": "Season", "Question": "Which?", "Answer": "(a)", "Series": "[1, -2, 3, 2, 1]"},
    ]


def m4_rows(shared: Path) -> list[dict]:
    rng = np.random.default_rng(1)
    lynx = column(shared / "forecast" / "Lynx.csv")
    steps = np.cumsum(rng.normal(size=301) * 1000 + 50) + 1e6
    return [
        {"id": "M1", "series": lynx, "caption": "  The series rises,\nand falls. \n"},
        {"id": "M2", "series": json.dumps(steps.round(1).tolist()), "caption": "A random walk."},
        {"id": "M3", "series": [3.0] * 6, "caption": "Constant."},
        {"id": "M4", "series": rng.normal(size=9).tolist(), "caption": "Noise"},
    ]


def har_rows(shared: Path) -> list[dict]:
    text = (shared / "har" / "BasicMotions_TRAIN.ts").read_text()
    case = text[text.index("@data") :].splitlines()[21].split(":")
    axes = [[float(value) for value in dimension.split(",")] for dimension in case[:3]]
    rng = np.random.default_rng(2)
    still = [rng.normal(size=127).round(4).tolist(), [-0.25] * 127, (9.81 + 1e-5 * rng.normal(size=127)).tolist()]
    return [
        {
            **{f"{axis}_axis": str(values) for axis, values in zip("xyz", axes, strict=True)},
            "label": "walking",
            "rationale": "  The axes swing.\n\nAnswer: walking \n",
        },
        {
            **{f"{axis}_axis": str(values) for axis, values in zip("xyz", still, strict=True)},
            "label": "lying",
            "rationale": "Nothing moves. Answer: lying",
        },
    ]


def sleep_rows(shared: Path) -> list[dict]:
    raw = np.fromfile(shared / "ecg" / "s0010_re.dat", dtype="<i2").reshape(-1, 12)[:30000, 1] / 2.0  # uV
    slow = resample_poly(raw, 1, 20).round(2).tolist()  # 30 s at 50 Hz, in place of an EEG
    return [
        {"time_series": str([slow]), "label": "Wake", "rationale": "\tSpiky. Answer: Wake\n"},
        {"time_series": str([[0.25] * 37]), "label": "Movement", "rationale": "Flat. Answer: Movement"},
    ]


def ecg_rows(ecg: np.ndarray) -> list[dict]:
    flat = (ecg[:4990:5, :3] / 1000.0).round(3)
    flat[:, 2] = 0.5
    two = (ecg[:500:5, 6:8] / 1000.0).round(3)
    return [
        {
            "question": " Does this ECG show {symptoms} of  myocardial infarction? ",
            "answer": "yes",
            "template_id": 1,
            "question_type": "single-verify",
            "clinical_context": "81-year-old woman. ",
            "rationale": " Q waves. Answer: yes ",
            "ecg_paths": ["ecg.dat"],
        },
        {
            "question": "What does it show?",
            "answer": "none",
            "template_id": 3,
            "question_type": "single-query",
            "clinical_context": None,
            "rationale": "Nothing. Answer: none",
            "signals": flat.tolist(),
        },
        {
            "question": "Which lead?",
            "answer": "none",
            "template_id": 70,
            "question_type": "single-choose",
            "clinical_context": "A context.",
            "rationale": "Answer: none",
            "signals": two.T.tolist(),
        },
    ]


def original(dataset: type, **changes) -> object:
    """A function that formats one row as `dataset` does, its columns first read as its loader reads them."""

    def formatted(row: dict, key: str) -> dict:
        made = object.__new__(dataset)
        made.EOS_TOKEN = ""
        read = {name: changes[name](value) if name in changes else value for name, value in row.items()}
        if dataset is ECGQACoTQADataset:
            context = row["clinical_context"]
            read["clinical_contexts"] = ["12-lead ECG recording." if context is None else context]
            if "signals" in row:
                signals = np.array(row["signals"])
                signals = signals if len(signals) > signals.shape[1] else signals.T
                dataset._ecg_data_cache[key] = (signals, "", "")
                read["ecg_paths"] = [key]
        return made._format_sample(read)

    return formatted


ORIGINAL = {
    "tsqa": original(TSQADataset),
    "m4": original(M4QADataset, series=lambda value: json.loads(value) if isinstance(value, str) else value),
    "har": original(HARCoTQADataset, **dict.fromkeys(("x_axis", "y_axis", "z_axis"), parse_time_series)),
    "sleep": original(SleepEDFCoTQADataset, time_series=lambda value: json.loads(value)[0]),
    "ecg": original(ECGQACoTQADataset),
}


def template_answers(shared: Path) -> None:
    """Let the original read the template answers from where it expects them."""
    folder = Path(tempfile.mkdtemp())
    (folder / "ecgqa" / "ptbxl").mkdir(parents=True)
    table = (shared / "ecgqa" / "answers_for_each_template.csv").read_text()
    (folder / "ecgqa" / "ptbxl" / "answers_for_each_template.csv").write_text(table)
    ecgqa_loader.ECG_QA_DIR = str(folder)
    ECGQACoTQADataset._load_template_answers_cache()


def ecg_record(source: Path) -> np.ndarray:
    """Write 10 s of a 1000 Hz, 12-lead, 2000-per-mV record at 500 Hz and 1000 per mV; int16 `[5000, 12]`."""
    raw = np.fromfile(source, dtype="<i2").reshape(-1, 12)[:10000] / 2.0
    signal = np.rint(resample_poly(raw, 1, 2, axis=0, padtype="line")).astype("<i2")
    signal.tofile(HERE / "ecg.dat")
    lines = [f"ecg 12 500 {len(signal)}"]
    for lead, name in enumerate(LEADS):
        checksum = int(signal[:, lead].astype(np.int64).sum().astype(np.int16))
        lines.append(f"ecg.dat 16 1000(0)/mV 16 0 {signal[0, lead]} {checksum} 0 {name}")
    lines.append(
        "# From s0010_re of the PTB Diagnostic ECG Database (PhysioNet, ODC-By 1.0): 10 s, resampled to 500 Hz"
    )
    (HERE / "ecg.hea").write_text("\n".join(lines) + "\n")
    return signal


def column(path: Path) -> list[float]:
    with path.open() as file:
        values = [float(row[1]) for row in list(csv.reader(file))[1:]]
    assert all(map(math.isfinite, values))
    return values


if __name__ == "__main__":
    main()
