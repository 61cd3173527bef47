"""The two long jobs of a fit of L(N, D), by var_fit and by SciPy, in turn on the same machine.

    VARSCALE_BIN=build/release/bin VARSCALE_CHINCHILLA=chinchilla_points.csv python tests/reference/fits_scipy.py --rounds 3

Points: the 240 published ones (arXiv 2404.10102: the five highest losses left out). Law: E + A / N^alpha + B / D^beta.
Objective: Huber losses, threshold 0.001, of ln loss - ln law (arXiv 2203.15556, approach 3).

  grid       its minimum from the published grid of 4,500 starts
  bootstrap  4,000 refits of 240 points drawn with replacement, from the minimum of all

SciPy's side is what a careful user writes: the objective as whole-array NumPy with its own gradient, times 1e6 since
tolerances of minimize() are for objectives near 1, BFGS, two processes of one thread each. L-BFGS-B on the objective as it is,
as the published code runs it, is timed for the grid as well. SciPy's time begins after its imports, var_fit's is that of the
whole command. var_fit runs the grid before its bootstrap; the time of the grid alone is taken off.

Needs SciPy, which nothing else here does.
"""

import argparse
import csv
import itertools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before NumPy is loaded
    os.environ.setdefault(_name, "1")

import numpy as np

DELTA, SCALE, PROCESSES, RESAMPLES = 1e-3, 1e6, 2, 4000
NAMES = ("E", "A", "B", "alpha", "beta")


def read_points(path):
    with open(path, newline="", encoding="utf-8") as file:
        rows = [(float(r["Model Size"]), float(r["Training FLOP"]), float(r["loss"])) for r in csv.DictReader(file)]
    limit = sorted((r[2] for r in rows), reverse=True)[4]
    kept = np.array([r for r in rows if r[2] < limit])
    log_n, log_d = np.log(kept[:, 0]), np.log(kept[:, 1] / (6 * kept[:, 0]))
    return limit, (log_n, log_d, np.log(kept[:, 2]))


def objective(x, points, scale):
    """Sum of Huber losses and its gradient by x = (ln A, ln B, ln E, alpha, beta)."""
    log_n, log_d, log_loss = points
    parts = np.stack((x[0] - x[3] * log_n, x[1] - x[4] * log_d, np.full_like(log_n, x[2])))
    top = parts.max(axis=0)
    grown = np.exp(parts - top)
    total = grown.sum(axis=0)
    r = log_loss - top - np.log(total)
    size = np.abs(r)
    value = np.where(size <= DELTA, 0.5 * r * r, DELTA * (size - 0.5 * DELTA)).sum()
    pulled = -np.clip(r, -DELTA, DELTA) * (grown / total)
    slope = np.array((pulled[0].sum(), pulled[1].sum(), pulled[2].sum(), -pulled[0] @ log_n, -pulled[1] @ log_d))
    return scale * value, scale * slope


def minimise(start, points, method):
    import scipy.optimize

    scale = SCALE if method == "BFGS" else 1.0
    options = {"maxiter": 1000, "gtol": 1e-6} if method == "BFGS" else {}
    end = scipy.optimize.minimize(objective, start, args=(points, scale), jac=True, method=method, options=options)
    return end.fun / scale, end.x


def work(task):
    kind, path, method, items, best = task
    points = read_points(path)[1]
    if kind == "grid":
        return [minimise(np.array(start), points, method) for start in items]
    ends = []
    for seed in items:
        drawn = np.random.default_rng(seed).integers(0, points[0].size, points[0].size)
        ends.append(minimise(best, tuple(p[drawn] for p in points), method))
    return ends


def shared(kind, path, method, items, best=None):
    import multiprocessing

    import scipy.optimize  # noqa: F401, loaded before the clock runs

    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        pool.map(abs, range(PROCESSES))
        begin = time.perf_counter()
        pieces = [(kind, path, method, items[k:k + 20], best) for k in range(0, len(items), 20)]
        ends = [end for piece in pool.imap(work, pieces) for end in piece]
        return ends, time.perf_counter() - begin


def scipy_side(job, path):
    """One job in this process and its two workers; prints a JSON line."""
    method = "L-BFGS-B" if job == "grid-lbfgsb" else "BFGS"
    starts = [(a, b, e, alpha, beta) for alpha, beta in itertools.product((0, 0.5, 1, 1.5, 2), repeat=2)
              for e in (-1, -0.5, 0, 0.5, 1) for a, b in itertools.product((0, 5, 10, 15, 20, 25), repeat=2)]
    near = minimise(np.array((6.0, 7.5, 0.6, 0.35, 0.36)), read_points(path)[1], "BFGS")
    if job == "bootstrap":
        ends, seconds = shared("bootstrap", path, method, list(range(RESAMPLES)), near[1])
        laws = np.array([end[1] for end in ends])
        result = {"se": {"E": np.std(np.exp(laws[:, 2]), ddof=1), "alpha": np.std(laws[:, 3], ddof=1),
                         "beta": np.std(laws[:, 4], ddof=1)}}
    else:
        ends, seconds = shared("grid", path, method, starts)
        best = min(ends, key=lambda end: end[0])
        result = {"objective": best[0], "alpha": best[1][3], "beta": best[1][4], "starts": len(ends),
                  "starts_at_best": int(sum(end[0] <= best[0] * (1 + 1e-6) for end in ends)),
                  "starts_at_least": int(sum(end[0] <= near[0] * (1 + 1e-6) for end in ends))}
    print(json.dumps({"seconds": seconds, **result}, default=float))


def timed(command):
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, seconds, cpu


def ours(program, path, limit, resamples):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "fit.json"
        _, seconds, cpu = timed([program, "points", path, "--form", "chinchilla", "--columns",
                                 "N=Model Size,C=Training FLOP,D=C/(6*N),loss=loss", "--where", f"loss < {limit!r}",
                                 "--estimator", "huber", "--resamples", str(resamples), "--json", str(out)])
        return json.loads(out.read_text()), seconds, cpu


def theirs(job, path):
    out, _, cpu = timed([sys.executable, __file__, "--job", job, "--points", path])
    result = json.loads(out)
    return result, result["seconds"], cpu


def busy_seconds():
    """Processor time of the whole machine so far, s."""
    fields = [int(v) for v in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def compare(path, rounds):
    program = str(pathlib.Path(os.environ.get("VARSCALE_BIN", "build/release/bin")) / "var_fit")
    limit = read_points(path)[0]
    print("round | job | var_fit, s | SciPy, s | SciPy / var_fit | processor s: var_fit | SciPy | ratio | by others during both")
    for k in range(1, rounds + 1):
        for job in ("grid", "grid-lbfgsb", "bootstrap"):
            busy = busy_seconds()
            grid, grid_s, grid_cpu = ours(program, path, limit, 0)
            used = grid_cpu
            fit, fit_s, fit_cpu = grid, grid_s, grid_cpu
            if job == "bootstrap":
                fit, fit_s, fit_cpu = ours(program, path, limit, RESAMPLES)
                used += fit_cpu
                fit_s, fit_cpu = fit_s - grid_s, fit_cpu - grid_cpu
            theirs_fit, s, cpu = theirs(job, path)
            print(f"{k} | {job} | {fit_s:.2f} | {s:.2f} | {s / fit_s:.1f} | {fit_cpu:.1f} | {cpu:.1f} | {cpu / fit_cpu:.1f}"
                  f" | {busy_seconds() - busy - used - cpu:.0f}", flush=True)
            if k > 1:
                continue
            parameters = fit["parameters"]
            if job == "bootstrap":
                print("  standard errors, var_fit:", {n: parameters[n]["se"] for n in ("E", "alpha", "beta")}, "SciPy:",
                      {n: float(f"{v:.4g}") for n, v in theirs_fit["se"].items()})
            else:
                print(f"  var_fit: objective {fit['objective']}, alpha {parameters['alpha']['value']}, beta"
                      f" {parameters['beta']['value']}, {fit['starts_at_best']} of {fit['starts']} starts at the best")
                print(f"  SciPy: objective {theirs_fit['objective']:.9g}, alpha {theirs_fit['alpha']:.6f}, beta"
                      f" {theirs_fit['beta']:.6f}, {theirs_fit['starts_at_best']} of {theirs_fit['starts']} starts at its best,"
                      f" {theirs_fit['starts_at_least']} within 1e-6 of the least known")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", default=os.environ.get("VARSCALE_CHINCHILLA"), help="the published file (VARSCALE_CHINCHILLA)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--job", choices=("grid", "grid-lbfgsb", "bootstrap"), help="SciPy's side of one job alone")
    arguments = parser.parse_args()
    if arguments.points is None:
        sys.exit("fits_scipy.py: no points; expected their file as --points or in VARSCALE_CHINCHILLA")
    try:
        import scipy
    except ImportError:
        sys.exit("fits_scipy.py: SciPy is missing, which this comparison needs; pip install scipy")
    if arguments.job:
        scipy_side(arguments.job, arguments.points)
        return
    print(f"SciPy {scipy.__version__}, NumPy {np.__version__}, {PROCESSES} processes")
    compare(arguments.points, arguments.rounds)


if __name__ == "__main__":
    main()
