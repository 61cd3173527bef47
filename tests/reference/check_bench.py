"""launch/bench.sh step and cost: their figures are those of the rounds, and what is missing is named in one sentence."""

import os
import pathlib
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import compare_cost
import step_report

SOURCE = pathlib.Path(os.environ.get("VARSCALE_SOURCE", pathlib.Path(__file__).parents[2])).resolve()


def check(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def results(*medians):
    return [{"median_ms": median, "tflops": 0.5, "torch": "2.11.0+cu130", "first_step_s": 30.0, "product_tflops_a_rank": 0.625,
             "share_of_products": 0.8} for median in medians]


def check_figures():
    """Of three rounds in which the machine slows down: ratios are taken within a round, and the best path over all."""
    rows = {("fp32", 2): {"ours": results(100, 200, 400), "mask": results(150, 320, 640),
                          "mask, compiled": results(160, 300, 720)},
            ("bf16", 2): {"ours": results(50, 50, 50), "mask": results(100, 100, 100)}}
    for row, median in zip(rows.values(), (140, 60), strict=True):  # faster than our own model, and not its best path
        row["other"] = [result | {"is": "a program"} for result in results(median, median, median)]
    row = rows["fp32", 2]
    check(step_report.best_path(row) == "mask, compiled", "the best path is not the one of the least median, 300")
    check(step_report.ratios(row, "mask, compiled") == [1.6, 1.5, 1.8], "ratios are not those within the rounds")
    facts = {"machine": "M", "options": SimpleNamespace(device="cpu", depths=[2], rounds=3, threads=2, repeats=12, warmup=3,
                                                        precision=["fp32", "bf16"], beside={"other": "/program"}),
             "reasons": {"flex, compiled": "no backward."}, "others_s": 12.0, "wall_s": 60.0, "others": 10.0,
             "commit": "c", "compiler": "12", "python": "3", "command": "C", "lines": {"ours": "L"}, "batches": {2: 8}}
    text = step_report.report(rows, facts)
    # FLOPs of ours: 0.5 TFLOP/s over 100 ms; at the compiled path's median of 300 ms that is 0.167 TFLOP/s.
    for words in ("takes 1.60 (d2) times as long as ours in fp32; "
                  "2.00 (d2) times as long as ours in bf16 against its autocast",
                  "Other work took 10 % of the machine meanwhile: these figures are not to be quoted",
                  "median over 3 rounds of the ratio within a round",
                  "That of other: 0.70 (d2) times as long as ours in fp32; 1.20 (d2) times as long as ours in bf16",
                  "| other | a program |",
                  "| 2 | **mask, compiled** | 160.0 300.0 720.0 | 187 % | 0.167 | 1.60 1.50 1.80 |",
                  "| 2 | fp32 | 0.625 | 80 % 80 % 80 % | 27 % | 3.75 |",  # 0.5 x 100 / 300 of 0.625
                  "The path flex, compiled does not run here: no backward.\n"):
        check(words in text, f"not in the report: {words}\n{text}")


def check_exponents():
    sizes = [2, 3, 5, 8]
    check(abs(compare_cost.slope(sizes, [7 * size**1.6 for size in sizes]) - 1.6) < 1e-12, "the exponent of a power is another")
    measured = {("fp32", growth): {value: {"median_ms": 5.0 * value, "gflop": 3.0 * value**2, "tflops": 0.6 * value}
                                   for value in values} for growth, (values, _) in compare_cost.GROWTHS.items()}
    text = compare_cost.report(measured, SimpleNamespace(threads=2, repeats=8), 1.0)
    for words in ("grows with depth 1.00 (FLOPs 2.00); batch 1.00 (FLOPs 2.00); tokens 1.00 (FLOPs 2.00).**\n",
                  "| fp32 | batch | 1.000 | 2.000 | 1: 5 ms 0.600, 2: 10 ms 1.200, 4: 20 ms 2.400, 8: 40 ms 4.800 |"):
        check(words in text, f"not in the report: {words}\n{text}")


def refuses(words, *arguments, programs):
    done = subprocess.run([SOURCE / "launch/bench.sh", "step", *arguments], text=True, capture_output=True, check=False,
                          env=os.environ | {"VARSCALE_BIN": str(programs)})
    check(done.returncode == 2 and words in done.stderr, f"{arguments}: ended with {done.returncode}, said {done.stderr}")
    return done.stderr


def main():
    check_figures()
    check_exponents()
    with tempfile.TemporaryDirectory(prefix="varscale-bench-") as empty:
        said = refuses(f"{empty}/var_bench is missing", programs=empty)
        check(said.startswith("bench: ") and said.count("\n") == 1, f"not one sentence: {said}")
        refuses("argument --depths", "--depths", "2,0", programs=empty)
        refuses("argument --precision", "--precision", "fp16", programs=empty)
        refuses("argument --beside", "--beside", f"other={empty}/missing", programs=empty)
        check(not list(pathlib.Path(empty).iterdir()), "something was left behind")


main()
