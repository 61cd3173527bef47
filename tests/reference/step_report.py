"""The text of results/benchmarks/<date>_step-reference-... from what compare_step.py has measured."""

import statistics

from bench_machine import warning

OURS = "ours"
PATH_WORDS = {  # in the order in which they run
    OURS: "`var_bench step`",
    "mask": "eager, `scaled_dot_product_attention` with its additive mask",
    "products": "eager, attention as two batched products, the mask and a softmax",
    "prefix": "eager, `scaled_dot_product_attention` map by map on the keys so far, the first maps as one",
    "mask, compiled": "as mask, forward and loss through `torch.compile`",
    "products, compiled": "as products, forward and loss through `torch.compile`",
    "prefix, compiled": "as prefix, forward and loss through `torch.compile`",
    "flex, compiled": "`flex_attention` with a block mask, through `torch.compile`",
}


def counted(number, word):
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def medians(results):
    return [result["median_ms"] for result in results]


def best_path(row):
    """Of our own PyTorch model: the path with the least median over the rounds."""
    return min((path for path in row if path in PATH_WORDS and path != OURS), key=lambda path: statistics.median(medians(row[path])))


def ratios(row, path):
    """Round by round: how many times as long as ours."""
    return [theirs / ours for theirs, ours in zip(medians(row[path]), medians(row[OURS]), strict=True)]


def spread(row, path):
    """Between rounds, per cent of the median."""
    values = medians(row[path])
    return 100 * (max(values) - min(values)) / statistics.median(values)


def listed(words):
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def by_depth(rows, path_of):
    """The ratios of a path, a phrase for each precision."""
    parts = []
    for precision in dict.fromkeys(precision for precision, _ in rows):
        each = [f"{statistics.median(ratios(row, path_of(row))):.2f} (d{depth})" for (p, depth), row in rows.items()
                if p == precision]
        parts.append(f"{listed(each)} times as long as ours in {precision}" +
                     (" against its autocast" if precision == "bf16" else ""))
    return "; ".join(parts)


def result_line(rows, rounds, others, beside):
    over = f"median over {rounds} rounds of the ratio within a round" if rounds > 1 else "one round"
    more = "".join(f" That of {name}: {by_depth(rows, lambda row, name=name: name)}." for name in beside)
    return f"**Result: the step of the best PyTorch path takes {by_depth(rows, best_path)} ({over}).{more}{warning(others)}**"


def table(rows, precision):
    lines = [f"{precision}, milliseconds a step, round by round:", "",
             "| depth | path | ms | between rounds | TFLOP/s | path / ours |", "| --- | --- | --- | --- | --- | --- |"]
    for (of, depth), row in rows.items():
        if of != precision:
            continue
        ours = row[OURS][0]
        flop = ours["tflops"] * ours["median_ms"]  # of a step, 1e9
        best = best_path(row)
        for path, results in row.items():
            values = medians(results)
            name = f"**{path}**" if path == best else path
            ratio = " ".join(f"{value:.2f}" for value in ratios(row, path)) if path != OURS else ""
            lines.append(f"| {depth} | {name} | {' '.join(f'{value:.1f}' for value in values)} | {spread(row, path):.0f} % "
                         f"| {flop / statistics.median(values):.3f} | {ratio} |")
    return lines


def shares(rows):
    """Of the rate of square products that the same machine reached after our steps, in the same process."""
    lines = ["Our steps beside what the machine's matrix products reach, measured in the same process:", "",
             "| depth | precision | products, TFLOP/s | share of it, round by round | the best PyTorch path's | ratio to it if ours were 100 % |",
             "| --- | --- | --- | --- | --- | --- |"]
    for (precision, depth), row in rows.items():
        ours = row[OURS]
        rate = statistics.median(result["product_tflops_a_rank"] for result in ours)
        theirs = ours[0]["tflops"] * ours[0]["median_ms"] / statistics.median(medians(row[best_path(row)])) / rate
        each = " ".join(f"{100 * result['share_of_products']:.0f} %" for result in ours)
        lines.append(f"| {depth} | {precision} | {rate:.3f} | {each} | {100 * theirs:.0f} % | {1 / theirs:.2f} |")
    return lines


def first_steps(rows):
    found = [results[0]["first_step_s"] for row in rows.values() for path, results in row.items() if "compiled" in path]
    return (min(found), max(found)) if found else None


def report(rows, facts):
    options, depths = facts["options"], [f"d{depth}" for depth in facts["options"].depths]
    torch = next(results[0]["torch"] for row in rows.values() for path, results in row.items() if path != OURS)
    batches = listed([f"{batch} at d{depth}" for depth, batch in facts["batches"].items()])
    where = "one GPU" if options.device == "cuda" else counted(options.threads, "CPU thread")
    step = "forward, loss, backward, gradient norm and clip at 2.0, AdamW (fused)"
    lines = [
        f"# One training step of {listed(depths)} at 256 px on {where}, against PyTorch", "",
        result_line(rows, options.rounds, facts["others"], options.beside), "",
        "| what | value |", "| --- | --- |",
        f"| machine | {facts['machine']} |",
        f"| beside it | {facts['others_s']:.0f} s of processor time by other processes in {facts['wall_s']:.0f} s: "
        f"{facts['others']:.0f} % of the machine |",
        f"| ours | commit {facts['commit']}, g++ {facts['compiler']} -O2, libtorch {torch.split('+')[0]} |",
        f"| baseline | tests/reference/var_torch.py of the same commit, torch {torch}, Python {facts['python']} |",
        f"| model | VAR {listed(depths)}: width 64 d, d heads, 1000 classes, scales 1,2,3,4,5,6,8,10,13,16 (680 tokens), V 4096, "
        "Cvae 32, drop path 0.1 d/24 |",
        f"| step | {step}; batch {batches}; the teacher input is there; ours also counts correct tokens, theirs "
        "also drops labels |",
        "| precision | fp32; bf16: weights, moments, norms and loss in fp32, products in bf16, PyTorch's by autocast |",
        "| allocator | the same settings of glibc on both sides (freed memory is kept) |",
        f"| threads | {options.threads} (`OMP_NUM_THREADS`) |",
        f"| command | `{facts['command']}` |",
        *(f"| {path} | `{line}`, and so on |" for path, line in facts["lines"].items()),
        f"| runs | {counted(options.rounds, 'round')}; in each every path at every depth and precision, each a process of its "
        f"own, the order moved on by one from round to round; {counted(options.repeats, 'step')} "
        f"after {options.warmup} that do not count; medians of a process |",
        "",
        "| path | what it is |", "| --- | --- |", *(f"| {path} | {words} |" for path, words in PATH_WORDS.items()),
        *(f"| {name} | {next(row[name][0]['is'] for row in rows.values())} |" for name in options.beside), ""]
    for precision in options.precision:
        lines += [*table(rows, precision), ""]
    lines += [*shares(rows), ""]
    lines.append("The best PyTorch path is in bold; TFLOP/s are those of the step's FLOPs as `var_bench` counts them. "
                 "The first steps of all PyTorch paths of our own model had the same loss.")
    if compiling := first_steps(rows):
        lines.append(f"The first step of a compiled path, which does not count, took {compiling[0]:.0f} to {compiling[1]:.0f} s.")
    for path, reason in facts["reasons"].items():
        lines.append(f"The path {path} does not run here: {reason.rstrip('.')}.")
    return "\n".join(lines) + "\n"
