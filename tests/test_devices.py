"""Recordings as devices, archives and spreadsheets write them: what is read, or why not.

The texts follow what the named exporters write; their numbers are made up. What is expected was written down from
the text, not from the reader.
"""

import gzip
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_tslm import TSLMError
from mlx_tslm.signals import How, SeveralCases, read

# Words of a library's or of Python's own, which tell a person nothing.
LEAKS = ("NoneType", "has no attribute", "Traceback", "zip()", "not supported between")
N = 40
A = [round(math.sin(at * 1.7) * 1.5 + 0.1 * (at % 3), 3) for at in range(N)]
B = [round(math.cos(at * 0.9) * 20 - 3, 2) for at in range(N)]
W = [100 + at * 7 % 13 for at in range(N)]  # whole numbers


def comma(value: float) -> str:
    return str(value).replace(".", ",")


def clock(seconds: float, form: str = "{h:02d}:{m:02d}:{s:02d}") -> str:
    whole = int(seconds)
    return form.format(h=whole // 3600 % 24, m=whole // 60 % 60, s=whole % 60, f=round((seconds - whole) * 1000))


def lines(*head: str, rows: Any, end: str = "\n") -> str:
    return end.join([*head, *rows]) + end


@dataclass
class Case:
    """A file and the right reading of it. `says`: words of a note; `refused`: words of the refusal."""

    text: str | bytes
    channels: dict[str, list[float]] = field(default_factory=dict)
    rate: float | None = None
    units: tuple[str, ...] | None = None
    says: str = ""
    refused: str = ""
    name: str = "x.csv"
    how: dict[str, Any] = field(default_factory=dict)
    chosen: list[str] | None = None
    fill: str | None = None
    start: str = ""


CASES: dict[str, Case] = {
    # --- wearables and sleep ----------------------------------------------------------------------------------
    "geneactiv": Case(
        lines(
            "Device Type,GENEActiv",
            "Device Model,1.1",
            "Serial Number,012967",
            "Measurement Frequency,50 Hz",
            "Start Time,2024-03-01 10:00:00:000",
            "Sensor type,MEMS accelerometer x-axis",
            "x gain,25548",
            rows=[f"2024-03-01 10:00:{at // 50:02d}:{at % 50 * 20:03d},{A[at]},{B[at]},{W[at]}" for at in range(N)],
        ),
        {"0": A, "1": B, "2": W},
        50,
        start="2024-03-01T10:00:00",
    ),
    "empatica acc": Case(
        lines(
            "1544027337.000000, 1544027337.000000",
            "32.000000, 32.000000",
            rows=[f"{W[at]},{-W[at]}" for at in range(N)],
        ),
        {"0": W, "1": [-w for w in W]},
        32,
        says="32 Hz",
        start="2018-12-05T16:28:57",
    ),
    "empatica eda": Case(lines("1544027337.000000", "4.000000", rows=map(str, A)), {"0": A}, 4, says="4 Hz"),
    "apple watch ecg": Case(
        lines(
            "Name,Jane Doe",
            'Date of Birth,"Jan 1, 1990"',
            "Recorded Date,2020-01-01 10:00:00 +0000",
            "Classification,Sinus Rhythm",
            "Symptoms,",
            "Software Version,1.90",
            'Device,"Watch4,3"',
            "Sample Rate,512 hertz",
            "",
            "",
            "Lead,Lead I",
            "Unit,µV",
            "",
            rows=map(str, A),
        ),
        {"Lead I": A},
        512,
        ("µV",),
    ),
    "samsung": Case(
        lines(
            "com.samsung.health.heart_rate,6110014,5",
            "start_time,heart_rate,comment",
            rows=[f"2024-03-01 10:{at:02d}:00.000,{W[at]},x," for at in range(N)],
        ),
        {"heart_rate": W},
        1 / 60,
    ),
    "fitabase": Case(
        lines(
            "ActivityMinute,Steps",
            rows=[f"4/12/2016 {clock(at * 60, '12:{m:02d}:{s:02d} AM')},{W[at]}" for at in range(N)],
        ),
        {"Steps": W},
        1 / 60,
        start="2016-04-12T00:00:00",
    ),
    "polar hr": Case(
        lines(
            "Name,Sport,Date,Start time,Duration",
            "Jane,RUNNING,01-03-2024,10:00:00,00:00:40",
            "Sample rate,Time,HR (bpm),Speed (km/h)",
            rows=[f",{clock(at)},{W[at]},{abs(B[at])}" for at in range(N)],
        ),
        {"HR": W, "Speed": [abs(b) for b in B]},
        1,
        ("bpm", "km/h"),
    ),
    "mind monitor": Case(
        lines(
            "TimeStamp,RAW_TP9,RAW_AF7,Elements",
            rows=[f"2024-03-01 10:00:00.{at * 4:03d},{A[at]},{B[at]}," for at in range(N)],
        ),
        {"RAW_TP9": A, "RAW_AF7": B},
        250,
    ),
    "shimmer": Case(
        lines(
            '"sep=\\t"',
            "Shimmer_TS_Unix_CAL\tShimmer_LN_X_CAL\tShimmer_LN_Y_CAL\t",
            "ms\tm/(s^2)\tm/(s^2)\t",
            rows=[f"{1709280000000 + at * 20}\t{A[at]}\t{B[at]}\t" for at in range(N)],
        ),
        {"Shimmer_LN_X_CAL": A, "Shimmer_LN_Y_CAL": B},
        50,
        ("m/(s^2)", "m/(s^2)"),
    ),
    "opensignals": Case(
        lines(
            "# OpenSignals Text File Format",
            '# {"00:07:80:4D:2E:76": {"sensor": ["ECG", "EDA"], "device name": "x", "column": ["nSeq", "DI", "CH1",'
            ' "CH2"],'
            ' "sampling rate": 1000, "label": ["CH1", "CH2"], "resolution": [4, 1, 16, 16]}}',
            "# EndOfHeader",
            rows=[f"{at % 16}\t0\t{W[at]}\t{W[at] + 5}\t" for at in range(N)],
        ),
        {"DI": [0] * N, "ECG": W, "EDA": [w + 5 for w in W]},
        1000,
        name="x.txt",
    ),
    "wisdm": Case(
        lines(rows=[f"33,Jogging,{49105962326000 + at * 50000000},{A[at]},{B[at]};" for at in range(N)]),
        {"0": [33] * N, "1": A, "2": B},
        None,
        name="x.txt",
        says="--time",
    ),
    "pamap2": Case(
        lines(rows=[f"{8.38 + at / 100:.2f} 0 {W[at]} {A[at]} {B[at]}" for at in range(N)]),
        {"0": [0] * N, "1": W, "2": A, "3": B},
        100,
        name="x.dat",
    ),
    "movesense": Case(
        '{"data": ['
        + ",".join(f'{{"acc": {{"Timestamp": {at * 20}, "x": {A[at]}, "y": {B[at]}}}}}' for at in range(N))
        + "]}",
        {"acc.x": A, "acc.y": B},
        name="x.json",
    ),
    # --- laboratory -------------------------------------------------------------------------------------------
    "physionet rdsamp": Case(
        lines(
            "'Elapsed time','MLII','V5'",
            "'seconds','mV','mV'",
            rows=[f"{at / 360:.3f},{A[at]},{B[at]}" for at in range(N)],
        ),
        {"MLII": A, "V5": B},
        360,
        ("mV", "mV"),
    ),
    "physionet rdsamp clock": Case(
        lines(
            "'Elapsed time','MLII','V5'",
            "'hh:mm:ss.mmm','mV','mV'",
            rows=[f"'0:00.{at * 8:03d}',{A[at]},{B[at]}" for at in range(N)],
        ),
        {"MLII": A, "V5": B},
        125,
        ("mV", "mV"),
    ),
    "qualisys": Case(
        lines(
            "NO_OF_FRAMES\t40",
            "NO_OF_CAMERAS\t8",
            "FREQUENCY\t100",
            "TIME_STAMP\t2024-03-01, 10:00:00",
            "MARKER_NAMES\tL\tR",
            rows=[f"{A[at]}\t{B[at]}\t{W[at]}\t{B[at]}" for at in range(N)],
        ),
        {"0": A, "1": B, "2": W, "3": B},
        100,
        name="x.tsv",
    ),
    "vernier": Case(
        lines("Latest: Time (s)\tLatest: Force (N)", rows=[f"{at * 0.05:.2f}\t{A[at]}" for at in range(N)]),
        {"Latest: Force": A},
        20,
        ("N",),
        name="x.txt",
    ),
    "labview lvm": Case(
        lines(
            "LabVIEW Measurement",
            "Writer_Version\t2",
            "Reader_Version\t2",
            "Separator\tTab",
            "Decimal_Separator\t.",
            "Multi_Headings\tNo",
            "X_Columns\tOne",
            "Time_Pref\tRelative",
            "***End_of_Header***",
            "",
            "Channels\t1",
            "Samples\t40",
            "Delta_X\t0.001",
            "***End_of_Header***",
            "X_Value\tVoltage\tComment",
            rows=[f"{at / 1000:.6f}\t{A[at]}" for at in range(N)],
        ),
        {"Voltage": A},
        1000,
        name="x.txt",
    ),
    "picoscope": Case(
        lines(
            "Time,Channel A,Channel B", "(ms),(mV),(V)", "", rows=[f"{at * 0.5},{A[at]},{B[at]}" for at in range(N)]
        ),
        {"Channel A": A, "Channel B": B},
        2000,
        ("mV", "V"),
    ),
    "keysight": Case(
        lines(
            "x-axis,1,2", "second,Volt,Volt", rows=[f"{at * 1e-4 - 0.002:.4e},{A[at]},{B[at]}" for at in range(N)]
        ),
        {"1": A, "2": B},
        10_000,
        ("Volt", "Volt"),
    ),
    "lecroy": Case(
        lines(
            "LECROYWS,12345,Waveform",
            "Segments,1,SegmentSize,40",
            "Segment,TrigTime,TimeSinceSegment1",
            "#1,01-Mar-2024 10:00:00,0",
            "Time,Ampl",
            rows=[f"{at * 2e-5:.6f},{A[at]}" for at in range(N)],
        ),
        {"Ampl": A},
        50_000,
    ),
    "matlab header": Case(
        lines("% fs = 500", "% Ch1 Ch2", rows=[f"{A[at]} {B[at]}" for at in range(N)]),
        {"Ch1": A, "Ch2": B},
        500,
        name="x.txt",
    ),
    "acquisition step": Case(
        lines(
            "Sampling interval: 2 ms",
            "Sample;Kraft [N];Weg [mm]",
            rows=[f"{at};{comma(A[at])};{comma(B[at])}" for at in range(N)],
        ),
        {"Kraft": A, "Weg": B},
        500,
        ("N", "mm"),
    ),
    "sampling khz": Case(lines("# Sampling Rate (kHz):= 1", "ecg", rows=map(str, A)), {"ecg": A}, 1000),
    "plux rate": Case(
        lines("# Sampling Rate (Hz):= 1000", rows=[f"{at}\t{W[at]}" for at in range(N)]),
        {"0": W},
        1000,
        name="x.txt",
    ),
    "filters are no rates": Case(
        lines("Low pass filter: 35 Hz", "Notch 50 Hz", "ecg [mV]", rows=map(str, A)), {"ecg": A}, None, ("mV",)
    ),
    "two rates": Case(
        lines("Sample rate: 250 Hz", "ADC data rate: 500 Hz", "ecg", rows=map(str, A)),
        {"ecg": A},
        None,
        says="several rates",
    ),
    # --- weather, finance, science archives -------------------------------------------------------------------
    "dwd": Case(
        lines(
            "STATIONS_ID;MESS_DATUM;TT_TU;RF_TU;eor",
            rows=[f"  44;20240301{at % 24:02d};  {A[at]};  {B[at]};eor" for at in range(24)],
        ),
        {"TT_TU": A[:24], "RF_TU": B[:24]},
        1 / 3600,
    ),
    "usgs rdb": Case(
        lines(
            "# U.S. Geological Survey",
            "#",
            "agency_cd\tsite_no\tdatetime\tdischarge",
            "5s\t15s\t20d\t14n",
            rows=[f"USGS\t01646500\t2024-03-01 {at // 4:02d}:{at % 4 * 15:02d}\t{W[at]}" for at in range(N)],
        ),
        {"discharge": W},
        1 / 900,
        name="x.txt",
    ),
    "mauna loa": Case(
        lines(
            "# Mauna Loa CO2",
            "# decimal date",
            rows=[
                f"{1958 + at // 12}   {at % 12 + 1}   {1958 + at / 12 + 0.04:.4f}  {315 + A[at]:.3f}"
                for at in range(N)
            ],
        ),
        {"0": [round(315 + a, 3) for a in A]},
        None,
        says="month",
        name="x.txt",
    ),
    "household power": Case(
        lines(
            "Date;Time;Global_active_power;Voltage",
            rows=[f"16/12/2006;17:{at:02d}:00;{abs(A[at])};{'?' if at == 7 else 240 + B[at]}" for at in range(N)],
        ),
        {"Global_active_power": [abs(a) for a in A]},
        1 / 60,
        chosen=["Global_active_power"],
    ),
    "household power, all": Case(
        lines(
            "Date;Time;Global_active_power;Voltage",
            rows=[f"16/12/2006;17:{at:02d}:00;{abs(A[at])};{'?' if at == 7 else 240 + B[at]}" for at in range(N)],
        ),
        refused="row 9, column 'Voltage' is missing",
    ),
    "ett": Case(
        lines(
            "date,HUFL,OT",
            rows=[f"2016-07-{1 + at // 24:02d} {at % 24:02d}:00:00,{A[at]},{B[at]}" for at in range(N)],
        ),
        {"HUFL": A, "OT": B},
        1 / 3600,
        start="2016-07-01T00:00:00",
    ),
    "ld2011": Case(
        lines(
            '"";"MT_001";"MT_002"',
            rows=[
                f'"2011-01-01 {at // 4:02d}:{at % 4 * 15:02d}:00";{comma(A[at])};{comma(B[at])}' for at in range(N)
            ],
        ),
        {"MT_001": A, "MT_002": B},
        1 / 900,
    ),
    "open-meteo csv": Case(
        lines(
            "latitude,longitude,elevation,timezone",
            "52.52,13.41,38.0,GMT",
            "",
            "time,temperature_2m (°C),rain (mm)",
            rows=[f"2024-03-01T{at:02d}:00,{A[at]},{B[at]}" for at in range(24)],
        ),
        {"temperature_2m": A[:24], "rain": B[:24]},
        1 / 3600,
        ("°C", "mm"),
    ),
    "open-meteo json": Case(
        '{"latitude": 52.5, "hourly_units": {"time": "iso8601"}, "hourly": {"time": ['
        + ",".join(f'"2024-03-01T{at:02d}:00"' for at in range(24))
        + f'], "temperature_2m": {A[:24]}}}}}',
        {"temperature_2m": A[:24]},
        1 / 3600,
        name="x.json",
    ),
    "alpha vantage": Case(
        '{"Meta Data": {"1. Information": "Daily"}, "Time Series (Daily)": {'
        + ",".join(
            f'"2024-01-{N - at - 9:02d}": {{"1. open": "{W[at]}.5", "4. close": "{W[at]}"}}' for at in range(30)
        )
        + "}}",
        {"1. open": [w + 0.5 for w in W[:30]][::-1], "4. close": W[:30][::-1]},
        1 / 86400,
        says="newest",
        name="x.json",
    ),
    "coingecko": Case(
        '{"prices": [' + ",".join(f"[{1709280000000 + at * 3600000}, {A[at]}]" for at in range(N)) + "]}",
        {"prices": A},
        1 / 3600,
        name="x.json",
    ),
    "prometheus": Case(
        '{"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {"job": "x"}, "values": ['
        + ",".join(f'[{1709280000 + at * 15}, "{A[at]}"]' for at in range(N))
        + "]}]}}",
        {"values": A},
        1 / 15,
        name="x.json",
    ),
    "stooq": Case(
        lines(
            "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<VOL>",
            rows=[
                f"AAPL.US,5,20240301,{clock(36000 + at * 300, '{h:02d}{m:02d}{s:02d}')},{A[at]},{W[at]}"
                for at in range(N)
            ],
        ),
        {"<PER>": [5] * N, "<OPEN>": A, "<VOL>": W},
        1 / 300,
    ),
    "german bank": Case(
        lines(
            "Buchungstag;Betrag;Saldo",
            rows=[f"{31 - at:02d}.01.2024;{comma(A[at])};1.{W[at]},50" for at in range(30)],
        ),
        {"Betrag": A[:30][::-1], "Saldo": [1000 + w + 0.5 for w in W[:30]][::-1]},
        1 / 86400,
        says="newest",
    ),
    "thousands": Case(
        lines("date,steps", rows=[f'2024-01-{at + 1:02d},"{1 + at},{200 + at}"' for at in range(30)]),
        refused="--decimal",
    ),
    "thousands told apart": Case(
        lines("date,steps", rows=[f'2024-01-{at + 1:02d},"{1 + at},{200 + at}.5"' for at in range(30)]),
        {"steps": [1000 * (1 + at) + 200 + at + 0.5 for at in range(30)]},
        1 / 86400,
    ),
    "thousands stated": Case(
        lines("date,steps", rows=[f'2024-01-{at + 1:02d},"{1 + at},{200 + at}"' for at in range(30)]),
        {"steps": [1000 * (1 + at) + 200 + at for at in range(30)]},
        1 / 86400,
        how={"decimal": "."},
    ),
    "swiss thousands": Case(
        lines("t;p", rows=[f"{at / 10};{1 + at}'{200 + at}.25" for at in range(N)]),
        {"p": [1000 * (1 + at) + 200.25 + at for at in range(N)]},
        10,
    ),
    # --- spreadsheets and programs ----------------------------------------------------------------------------
    "excel sep": Case(
        lines("sep=;", "t;a", rows=[f"{comma(at / 10)};{comma(A[at])}" for at in range(N)]), {"a": A}, 10
    ),
    "r write.table": Case(
        lines('"t" "ecg"', rows=[f'"{at + 1}" {at / 100} {A[at]}' for at in range(N)]),
        {"ecg": A},
        100,
        name="x.txt",
    ),
    "pandas index": Case(lines(",a,b", rows=[f"{at},{A[at]},{B[at]}" for at in range(N)]), {"a": A, "b": B}),
    "pandas date index": Case(
        lines(",a", rows=[f"2024-03-01 00:00:{at:02d},{A[at]}" for at in range(N)]), {"a": A}, 1
    ),
    "pandas numbers": Case(lines(",0,1", rows=[f"{at},{A[at]},{B[at]}" for at in range(N)]), {"0": A, "1": B}),
    "empty rows at the end": Case(
        lines("t,a", rows=[*(f"{at / 4},{A[at]}" for at in range(N)), ",", ","]), {"a": A}, 4
    ),
    "trailing comma in rows": Case(lines("t,a", rows=[f"{at / 4},{A[at]}," for at in range(N)]), {"a": A}, 4),
    "names over two lines": Case(
        'time,"ECG\n(mV)"\n' + "".join(f"{at / 100},{A[at]}\n" for at in range(N)), {"ECG": A}, 100, ("mV",)
    ),
    "utf-16": Case(
        lines("Zeit [s]\tDruck [kPa]", rows=[f"{comma(at / 50)}\t{comma(A[at])}" for at in range(N)]).encode(
            "utf-16"
        ),
        {"Druck": A},
        50,
        ("kPa",),
        name="x.txt",
    ),
    "latin-1": Case(
        lines("time (s);EEG (µV)", rows=[f"{at / 50};{A[at]}" for at in range(N)]).encode("latin-1"),
        {"EEG": A},
        50,
        ("µV",),
        says="Windows-1252",
    ),
    "gz": Case(
        gzip.compress(lines("t,a", rows=[f"{at / 4},{A[at]}" for at in range(N)]).encode()),
        {"a": A},
        4,
        name="x.csv.gz",
    ),
    "old mac": Case(lines("t,a", rows=[f"{at / 4},{A[at]}" for at in range(N)], end="\r\n"), {"a": A}, 4),
    "units in a row": Case(
        lines("Time,HR,SpO2", "s,bpm,%", rows=[f"{at},{W[at]},{90 + at % 5}" for at in range(N)]),
        {"HR": W, "SpO2": [90 + at % 5 for at in range(N)]},
        1,
        ("bpm", "%"),
    ),
    "types in a row": Case(
        lines("a,b", "float64,float64", rows=[f"{A[at]},{B[at]}" for at in range(N)]), {"a": A, "b": B}
    ),
    "two levels of names": Case(
        lines("Sensor 1,,Sensor 2,", "X,Y,X,Y", rows=[f"{A[at]},{B[at]},{W[at]},{A[at]}" for at in range(N)]),
        {"Sensor 1 X": A, "Sensor 1 Y": B, "Sensor 2 X": W, "Sensor 2 Y": A},
    ),
    "average below": Case(
        lines("t,a", rows=[*(f"{at / 4},{A[at]}" for at in range(N)), "Average,0.3", "Max,1.5"]),
        {"a": A},
        4,
        says="'Average'",
    ),
    "grand total": Case(
        lines("week,sales", rows=[*(f"W{at},{W[at]}" for at in range(N)), f"Grand Total,{sum(W)}"]),
        {"sales": W},
        says="Grand Total",
    ),
    # --- time -------------------------------------------------------------------------------------------------
    "yyyymmdd": Case(
        lines("date,v", rows=[f"202403{at + 1:02d},{A[at]}" for at in range(30)]), {"v": A[:30]}, 1 / 86400
    ),
    "yyyymm": Case(
        lines("month,v", rows=[f"{2000 + at // 12}{at % 12 + 1:02d},{A[at]}" for at in range(N)]), {"v": A}, None
    ),
    "years": Case(lines("Year,v", rows=[f"{1900 + at},{A[at]}" for at in range(N)]), {"v": A}, None, says="year"),
    "quarters": Case(
        lines("q,v", rows=[f"{2000 + at // 4}-Q{at % 4 + 1},{A[at]}" for at in range(N)]), {"v": A}, None
    ),
    "sample numbers": Case(lines("sample,v", rows=[f"{at},{A[at]}" for at in range(N)]), {"v": A}, None),
    "minutes": Case(lines("time_min,v", rows=[f"{at},{A[at]}" for at in range(N)]), {"v": A}, 1 / 60),
    "hours": Case(lines("Time (h),v", rows=[f"{at * 0.5},{A[at]}" for at in range(N)]), {"v": A}, 1 / 1800),
    "unitless": Case(lines("time,v", rows=[f"{at * 4},{A[at]}" for at in range(N)]), {"v": A}, None, says="--time"),
    "unitless, stated": Case(
        lines("time,v", rows=[f"{at * 4},{A[at]}" for at in range(N)]), {"v": A}, 250, how={"time": "time=ms"}
    ),
    "epoch ns": Case(
        lines("ts,v", rows=[f"{1709280000000000000 + at * 10**7},{A[at]}" for at in range(N)]),
        {"v": A},
        100,
        says="ns",
    ),
    "epoch us": Case(
        lines("time,v", rows=[f"{1709280000000000 + at * 4000},{A[at]}" for at in range(N)]),
        {"v": A},
        250,
        says="µs",
    ),
    "excel time": Case(
        lines("Time,v", rows=[f"{45292 + at / 86400:.9f},{A[at]}" for at in range(N)]), {"v": A}, 1, says="Excel"
    ),
    "am pm": Case(
        lines(
            "Time;v",
            rows=[
                f"{clock(39600 + at * 120, '{h}:{m:02d}:{s:02d}')} {'AM' if at < 30 else 'PM'};{A[at]}"
                for at in range(N)
            ],
        ),
        {"v": A},
        1 / 120,
    ),
    "over midnight": Case(
        lines("Time;v", rows=[f"{clock(86400 - 20 + at)};{A[at]}" for at in range(N)]), {"v": A}, 1
    ),
    "month first": Case(
        lines("Date,v", rows=[f"1/{at + 1}/2024,{A[at]}" for at in range(28)]),
        {"v": A[:28]},
        1 / 86400,
        start="2024-01-01T00:00:00",
    ),
    "day first": Case(
        lines("Date,v", rows=[f"{at + 1}/1/2024,{A[at]}" for at in range(28)]),
        {"v": A[:28]},
        1 / 86400,
        start="2024-01-01T00:00:00",
    ),
    "day or month": Case(
        lines("Date,v", rows=[f"{at + 1:02d}/{at + 1:02d}/2024,{A[at]}" for at in range(5)]), {"v": A[:5]}, None
    ),
    "german dates": Case(
        lines("Datum;Wert", rows=[f"{at + 1}. März 2024;{comma(A[at])}" for at in range(28)]),
        {"Wert": A[:28]},
        1 / 86400,
    ),
    "zone": Case(
        lines(
            "t,v",
            rows=[
                f"2024-03-31T{(at + 1) % 24:02d}:00:00+0{1 if at < 1 else 2}:00,{A[at]}"
                for at in (0, *range(2, 20))
            ],
        ),
        {"v": [A[0], *A[2:20]]},
        1 / 3600,
    ),
    "hour that comes twice": Case(
        lines(
            "time,v",
            rows=[f"2024-10-27 {hour:02d}:00,{A[at]}" for at, hour in enumerate([0, 1, 2, 2, 3, 4, 5, 6, 7, 8])],
        ),
        {"v": A[:10]},
        None,
        says="uneven",
    ),
    "hour that is missing": Case(
        lines(
            "time,v", rows=[f"2024-03-31 {hour:02d}:00,{A[at]}" for at, hour in enumerate([0, 1, 3, 4, 5, 6, 7, 8])]
        ),
        {"v": A[:8]},
        None,
        says="gap",
    ),
    "weekends": Case(
        lines("Date,v", rows=[f"2024-01-{at + 1:02d},{A[at]}" for at in range(28) if at % 7 < 5]),
        {"v": [A[at] for at in range(28) if at % 7 < 5]},
        None,
        says="uneven",
    ),
    "jitter": Case(
        lines("time_s,v", rows=[f"{at * 0.02 + 0.002 * ((at * 7) % 5 - 2):.4f},{A[at]}" for at in range(N)]),
        {"v": A},
        50,
        says="vary",
    ),
    "time in the middle": Case(
        lines("a,time_ms,b", rows=[f"{A[at]},{at * 5},{B[at]}" for at in range(N)]), {"a": A, "b": B}, 200
    ),
    "two clocks": Case(
        lines(
            "t_phone;t_sensor [ms];x",
            rows=[f"2024-03-01T10:00:{at // 2:02d};{at * 500};{A[at]}" for at in range(N)],
        ),
        {"x": A},
        2,
    ),
    "counter that wraps": Case(
        lines("Sample Index, EXG 0", rows=[f"{at % 16}, {A[at]}" for at in range(N)]), {"EXG 0": A}, None
    ),
    "date parts": Case(
        lines("YYYY MM DD hh mm v", rows=[f"2024 03 01 10 {at:02d} {A[at]}" for at in range(N)]),
        {"v": A},
        1 / 60,
        name="x.txt",
    ),
    "only times": Case(
        lines("time,state", rows=[f"{at},{'on' if at % 2 else 'off'}" for at in range(N)]), refused="says when"
    ),
    "rises, but no time": Case(
        lines("distance,v", rows=[f"{10 + at * 0.5},{A[at]}" for at in range(N)]),
        {"distance": [10 + at * 0.5 for at in range(N)], "v": A},
        None,
    ),
    # --- several series ---------------------------------------------------------------------------------------
    "long by patient": Case(
        lines("patient_id,time,hr", rows=[f"{who},{at},{W[at]}" for who in (7, 9) for at in range(20)]),
        refused="--case: 7, 9",
    ),
    "long by patient, chosen": Case(
        lines("patient_id,time_s,hr", rows=[f"{who},{at},{W[at] + who}" for who in (7, 9) for at in range(20)]),
        {"hr": [w + 9 for w in W[:20]]},
        1,
        how={"case": "9"},
    ),
    "long, interleaved": Case(
        lines(
            "time;sensor;value",
            rows=[f"2024-03-01 10:00:{at:02d};{who};{A[at]}" for at in range(20) for who in ("a", "b")],
        ),
        refused="--case: a, b",
    ),
    "long, interleaved, chosen": Case(
        lines(
            "time;sensor;value",
            rows=[
                f"2024-03-01 10:00:{at:02d};{who};{A[at] if who == 'a' else B[at]}"
                for at in range(20)
                for who in ("a", "b")
            ],
        ),
        {"value": B[:20]},
        1,
        how={"case": "b"},
    ),
    "challenge 2012": Case(
        lines(
            "Time,Parameter,Value",
            rows=[f"{at:02d}:30,{what},{W[at]}" for at in range(10) for what in ("HR", "Temp")],
        ),
        refused="'Parameter'",
    ),
    "starts over": Case(
        lines("time_s,v", rows=[f"{at},{A[at]}" for _ in range(2) for at in range(20)]),
        refused="time goes back at row 22",
    ),
    "labels are no series": Case(
        lines("t,activity,acc", rows=[f"{at / 20},{'walk' if at < 20 else 'sit'},{A[at]}" for at in range(N)]),
        {"acc": A},
        20,
        says="'activity'",
    ),
    "years across": Case(
        lines("Country,2000,2001,2002,2003,2004", rows=["A,1,2,3,4,5", "B,2,3,4,5,6", "C,3,4,5,6,7"]),
        refused="each row",
    ),
    "world bank": Case(
        lines(
            '"Data Source","World Development Indicators",',
            "",
            '"Country Name","Country Code","1990","1991","1992","1993",',
            rows=[f'"C{at}","C{at}","1","2","3","4",' for at in range(20)],
        ),
        refused="each row",
    ),
    "davis": Case(
        lines(
            "Date\tTime\tOut\tHum",
            rows=[f"13/03/24\t{at // 2 + 1}:{at % 2 * 30:02d}a\t{A[at]}\t{W[at]}" for at in range(20)],
        ),
        {"Out": A[:20], "Hum": W[:20]},
        1 / 1800,
        name="x.txt",
    ),
    # --- cells ------------------------------------------------------------------------------------------------
    "missing, filled": Case(
        lines("t,v", rows=[f"{at / 10},{'--' if at in (3, 4) else at}" for at in range(N)]),
        {"v": list(range(N))},
        10,
        fill="linear",
        says="2 of 40",
    ),
    "missing, held": Case(
        lines("t,v", rows=[f"{at / 10},{'NULL' if at == 3 else at}" for at in range(N)]),
        {"v": [2 if at == 3 else at for at in range(N)]},
        10,
        fill="hold",
    ),
    "too long a gap": Case(
        lines("t,v", rows=[f"{at / 10},{'' if 3 <= at < 20 else at}" for at in range(N)]),
        fill="linear",
        refused="17 values in a row",
    ),
    "sentinel": Case(
        lines("t,v", rows=[f"{at / 10},{-9999 if at in (3, 9) else A[at]}" for at in range(N)]), refused="missing"
    ),
    "sentinel, filled": Case(
        lines("t,v", rows=[f"{at / 10},{-9999 if at in (3, 9) else at}" for at in range(N)]),
        {"v": list(range(N))},
        10,
        fill="linear",
        says="-9999",
    ),
    "degrees": Case(lines("t,temp", rows=[f"{at / 10},{A[at]} °C" for at in range(N)]), {"temp": A}, 10, ("°C",)),
    "mixed units": Case(
        lines("t,v", rows=[f"{at / 10},{A[at]} {'mV' if at % 2 else 'V'}" for at in range(N)]),
        refused="mixes units",
    ),
    "euros": Case(
        lines("Monat;Umsatz", rows=[f"2024-{at + 1:02d};{comma(A[at])} €" for at in range(12)]), refused="Umsatz"
    ),
    "fortran": Case(
        lines(rows=[f"  {A[at]:.6E}  {B[at]:.6E}".replace("E", "D") for at in range(N)]),
        {"0": A, "1": B},
        name="x.txt",
    ),
    "ids are no numbers": Case(
        lines("t,id,v", rows=[f"{at / 10},8AB{at},{A[at]}" for at in range(N)]), {"v": A}, 10
    ),
    "names twice": Case(
        lines("t,ECG,ECG", rows=[f"{at / 10},{A[at]},{B[at]}" for at in range(N)]),
        refused="several channels are called 'ECG'",
        chosen=["ECG"],
    ),
    "channel twice": Case(
        lines("a,b", rows=[f"{A[at]},{B[at]}" for at in range(N)]), refused="given twice", chosen=["a", "a"]
    ),
    "a unit in the choice": Case(
        lines("t,ecg [uV]", rows=[f"{at / 10},{A[at]}" for at in range(N)]),
        {"ecg": A},
        10,
        ("uV",),
        chosen=["ecg [uV]"],
    ),
    "pairs of commas": Case(lines(rows=[f"{W[at]},{W[at] + 100}" for at in range(N)]), refused="--decimal"),
    "pairs of commas, stated": Case(
        lines(rows=[f"{W[at]},{W[at] + 100}" for at in range(N)]),
        {"0": W, "1": [w + 100 for w in W]},
        how={"delimiter": ","},
    ),
    "skipped lines": Case(
        lines("one,two,three", "4,5,6", "a,b,c", rows=[f"{A[at]},{B[at]},{W[at]}" for at in range(N)]),
        {"a": A, "b": B, "c": W},
        how={"skip_lines": 2},
    ),
    # --- what is no recording ---------------------------------------------------------------------------------
    "sign-in page": Case("<html><head><title>Login</title></head><body>1,2</body></html>", refused="web page"),
    "xml": Case('<?xml version="1.0"?><gpx><trkpt lat="1" lon="2"/></gpx>', refused="XML"),
    "lfs": Case(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", refused="LFS", name="x.npy.csv"
    ),
    "zip": Case(b"PK\x03\x04" + b"\0" * 60, refused="zip"),
    "pdf": Case(b"%PDF-1.4 ...", refused="PDF"),
    "json called csv": Case('{"fs": 100, "ecg": ' + str(A) + "}", {"ecg": A}, 100),
    "prose": Case("This is a letter.\nIt has no numbers, or few.\n", refused="no"),
}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if isinstance(case.text, str)])
def test_a_damaged_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    """No mutilation ends in anything but a recording or one line of the product's own."""
    rng = random.Random(name)
    case = CASES[name]
    for way in range(6):
        rows = str(case.text).split("\n")
        at, other = rng.randrange(len(rows)), rng.randrange(len(rows))
        changed = (
            [*rows[:at], *rows[at + 1 :]],
            [*rows[:at], rows[other], *rows[at:]],
            rows[: rng.randrange(1, 8)],
            [*rows[:at], rows[at][: len(rows[at]) // 2], *rows[at + 1 :]],
            [*rows[:at], rows[at].replace(",", ";").replace(".", ","), *rows[at + 1 :]],
            [row[:-1] if rng.random() < 0.1 else row for row in rows],
        )[way]
        path = tmp_path / case.name
        path.write_text("\n".join(changed))
        try:
            got = read(path, how=How(**case.how))
        except TSLMError as error:
            assert "\n" not in str(error) and not any(leak in str(error) for leak in LEAKS)
        else:
            assert np.isfinite(got.values).all()


@pytest.mark.parametrize("name", CASES)
def test_a_reading(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = tmp_path / case.name
    path.write_bytes(case.text if isinstance(case.text, bytes) else case.text.encode())
    if case.refused or not case.channels:
        with pytest.raises(TSLMError) as caught:
            read(path, case.chosen, fill=case.fill, how=How(**case.how))
        said = str(caught.value)
        assert case.refused in said and str(path) in said and "\n" not in said
        return
    got = read(path, case.chosen, fill=case.fill, how=How(**case.how))
    assert dict(zip(got.names, got.values.tolist(), strict=True)).keys() == case.channels.keys(), got.notes
    for own, values in zip(got.names, got.values, strict=True):
        np.testing.assert_allclose(values, case.channels[own], err_msg=own)
    assert got.rate == (None if case.rate is None else pytest.approx(case.rate, rel=1e-6)), got.notes
    assert case.units is None or got.units == case.units
    assert case.says in " ".join(got.notes)
    assert not case.start or (got.start and got.start.isoformat() == case.start)


def test_a_case_names_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(str(CASES["long by patient"].text))
    with pytest.raises(SeveralCases) as caught:
        read(path)
    assert caught.value.cases == ("7", "9")
