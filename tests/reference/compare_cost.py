"""What a training step costs against depth, batch and tokens, beside what its FLOPs say: launch/bench.sh cost. Exponents are the
slopes of least squares in logarithms; a step whose time grows as its FLOPs has the same rate at every size.
"""

import argparse
import math
import pathlib
import shlex
import sys

from bench_machine import SOURCE, OtherWork, check_programs, commit, file_of_today, machine, var_bench, warning

PYRAMIDS = {155: "1,2,3,4,5,6,8", 255: "1,2,3,4,5,6,8,10", 424: "1,2,3,4,5,6,8,10,13", 680: "1,2,3,4,5,6,8,10,13,16",
            2240: "1,2,3,4,6,9,13,18,24,32"}
# What grows, its values, and the arguments of var_bench step at each.
GROWTHS = {
    "depth": ([2, 3, 4, 6, 8], lambda depth: ["--depth", depth, "--batch", 4]),
    "batch": ([1, 2, 4, 8], lambda batch: ["--depth", 4, "--batch", batch]),
    "tokens": (list(PYRAMIDS), lambda tokens: ["--depth", 4, "--batch", 2, "--scales", PYRAMIDS[tokens]]),
}


def slope(xs, ys):
    """Of log y against log x."""
    x, y = [math.log(value) for value in xs], [math.log(value) for value in ys]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x)**2 for a in x)


def report(measured, options, others):
    """measured: {(precision, growth): {value: result}}."""
    lines = [f"# What a training step costs against depth, batch and tokens, on {options.threads} CPU threads", ""]
    rows = []
    for (precision, growth), results in measured.items():
        values = list(results)
        time_of = slope(values, [result["median_ms"] for result in results.values()])
        flop_of = slope(values, [result["gflop"] for result in results.values()])
        each = ", ".join(f"{value}: {result['median_ms']:.0f} ms {result['tflops']:.3f}" for value, result in results.items())
        rows.append((precision, growth, time_of, flop_of, each))
    words = "; ".join(f"{growth} {time_of:.2f} (FLOPs {flop_of:.2f})" for precision, growth, time_of, flop_of, _ in rows
                      if precision == rows[0][0])
    lines += [f"**Result: in {rows[0][0]} a step's time grows with {words}.{warning(others)}**", "", "| what | value |", "| --- | --- |", f"| machine | {machine()[1]} |",
              f"| beside it | {others:.0f} % of the machine by other processes |", f"| ours | commit {commit()} |",
              f"| command | `./launch/bench.sh cost{' ' if sys.argv[1:] else ''}{shlex.join(sys.argv[1:])}` |",
              "| model | width 64 d, 680 tokens, V 4096; depth at batch 4, batch at d4, tokens at d4 and batch 2 (the first 7 to 10 maps, "
              "and the ten of 512 px) |", f"| runs | a process each; {options.repeats} steps after 2 that do not count, medians |", "",
              "| precision | grows | exponent of time | of FLOPs | at each: ms, TFLOP/s |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {precision} | {growth} | {time_of:.3f} | {flop_of:.3f} | {each} |" for precision, growth, time_of, flop_of, each in rows]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(prog="launch/bench.sh cost", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=8, help="steps of a process that count (8)")
    parser.add_argument("--threads", type=int, default=2, help="(2)")
    parser.add_argument("--out", type=pathlib.Path, default=SOURCE / "results/benchmarks", help="folder of the file")
    options = parser.parse_args()
    check_programs()
    file = file_of_today(options.out, f"step-cost-256px_{machine()[0]}")
    work = OtherWork()
    measured = {}
    for precision in ("fp32", "bf16"):
        for growth, (values, arguments) in GROWTHS.items():
            measured[precision, growth] = {
                value: var_bench("step", *arguments(value), "--precision", precision, "--repeats", options.repeats, "--warmup", 2,
                                 threads=options.threads) for value in values}
    *_, others = work.so_far()
    file.write_text(report(measured, options, others))
    print(f"written: {file}")


if __name__ == "__main__":
    main()
