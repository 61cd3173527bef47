"""Every subcommand of var_bench at its smallest: one JSON object a line, numbers that fit together, refusals in one sentence."""

import json

from support import BAD_INPUT, check, run, scratch

SMALL = ["--depth", "1", "--batch", "2", "--scales", "1,2,4", "--vocabulary", "64"]
ONCE = ["--repeats", "1", "--warmup", "0"]
FLOAT_BYTES = 4


def results(*line, ranks=0):
    return [json.loads(text) for text in run("var_bench", *line, ranks=ranks).stdout.splitlines()]


def result(*line, ranks=0):
    (one,) = results(*line, ranks=ranks)
    return one


def refused(expected, *line, ranks=0):
    said = run("var_bench", *line, ranks=ranks, code=BAD_INPUT).stderr
    check(expected in said, f"{line}: expected {expected!r} in {said!r}")


def steps():
    for precision in ("fp32", "bf16"):
        step = result("step", *SMALL, *ONCE, "--precision", precision)
        check(step["tokens_per_image"] == 1 + 4 + 16, step)
        check(step["graph"] is False and step["new_memory_events_a_step"] >= 0, step)
        check(abs(step["gflop"] / step["median_ms"] / step["tflops"] - 1) < 1e-9, step)
        check(abs(step["share_of_products"] * step["product_tflops_a_rank"] / step["tflops"] - 1) < 1e-9, step)
    both = result("step", *SMALL, *ONCE, "--mode", "zero3", ranks=2)
    check(both["ranks"] == 2 and both["gflop"] == step["gflop"], both)
    turns = result("overlap", *SMALL, *ONCE, ranks=2)
    check(turns["overlapped"]["repeats"] == turns["after_backward"]["repeats"] == 1, turns)


def operations():
    *lines, whole = results("operations", *SMALL, "--repeats", "2", "--warmup", "1", "--most", "200")
    shares = [line["share"] for line in lines]
    check(shares == sorted(shares, reverse=True) and len(lines) > 10, lines)
    check(abs(sum(shares) - whole["share_in_operations"]) < 1e-9 and 0 < whole["share_in_operations"] < 1, whole)
    attention = result("attention", "--px", "256", "--heads", "1", *ONCE)
    check(attention["tokens"] == 680 and abs(attention["seen_share"] - 286434 / 680**2) < 1e-9, attention)
    calls = {line["name"]: line["calls_a_step"] for line in lines}
    check(calls["aten::_fused_adamw_"] == 2, calls)  # what decays, and what does not


def memory():
    ranks = results("memory", *SMALL, "--mode", "zero2", ranks=2)
    check([line["rank"] for line in ranks] == [0, 1], ranks)
    plain = result("memory", *SMALL)
    check(plain["activation_bytes_per_token"] > 0 and plain["peak_mib"] > plain["pool_mib"] > 0, plain)
    largest = result("memory", "--batch", "8", "--precision", "bf16", "--device", "cuda", "--fits", "139")
    check(largest["peak_estimate_gib"] <= 139 and largest["depth"] >= 30, largest)
    fewer = result("memory", *SMALL, "--recompute", "selective")
    check(fewer["activation_bytes_per_token"] < plain["activation_bytes_per_token"], fewer)
    check("activation_bytes_per_token" not in result("memory", *SMALL, "--recompute", "full"), "an estimate of another thing")


def pieces():
    products = results("products", "--side", "64,128", "--repeats", "2")
    check([line["side"] for line in products] == [64, 128] and min(line["tflops_a_rank"] for line in products) > 0, products)
    calls = {line["what"]: line for line in results("collectives", "--mib", "1", *ONCE, ranks=2)}
    check(calls["all_reduce"]["bytes"] == 1 << 20 and "gb_per_s" not in calls["barrier"], calls)
    check(result("frechet", "--features", "8", *ONCE)["features"] == 8, "frechet")
    check(result("encode", "--images", "1", *ONCE)["images_per_s"] > 0, "encode")
    sample = result("sample", "--depth", "1", "--images", "1", *ONCE)
    # Keys and values of 680 tokens and width 64 for 8 slots with and without guidance.
    check(abs(sample["kv_cache_mib"] * 2**20 - 2 * 16 * 680 * 64 * FLOAT_BYTES) < 1, sample)


def refusals():
    refused("--batch 1: expected at least one image for each of the 2 ranks", "step", "--batch", "1", ranks=2)
    refused("--shards 3: expected a divisor of the 2 ranks", "step", *SMALL, "--mode", "hybrid", "--shards", "3", ranks=2)
    refused("--fits 0.01: a step of 4 images does not fit", "memory", "--fits", "0.01")
    refused("operations are timed on the CPU alone", "operations", "--device", "cuda")
    refused("--graph: records the step of a GPU", "step", *SMALL, "--graph")
    refused("--precision", "step", "--precision", "fp8")
    refused("subcommand", "--depth", "4")


def main():
    with scratch("bench-commands"):
        steps()
        operations()
        memory()
        pieces()
        refusals()


if __name__ == "__main__":
    main()
