"""The batch scripts of launch/slurm without a Slurm: scontrol, srun, mpirun and var_sweep are stubs on PATH.

What they are told is written down and compared: which nodes a launch starts on after one has died, when a job is
queued again and under which number, where the runs of step_per_run go, what is copied to a node's own disk.
"""

import os
import pathlib
import subprocess

from support import SOURCE, check, scratch

# Three nodes, of which dead-state.txt and dead-srun.txt name those that Slurm calls down or that do not start a process.
STUBS = {
    "scontrol": """
case "$1 $2" in
  "show hostnames") for n in ${3//,/ }; do echo "$n"; done ;;
  "show node")
    grep -qx "$4" dead-state.txt && echo "NodeName=$4 State=MIXED+NOT_RESPONDING" || echo "NodeName=$4 State=ALLOCATED" ;;
  "show job") echo "JobId=$3 JobState=$(cat state.txt) Reason=None" ;;
  *) echo "scontrol $*" >>said.txt ;;
esac""",
    "srun": """
while [[ $1 == -* ]]; do [ "$1" = -w ] && { node=$2; shift; }; shift; done
[ -z "${node:-}" ] || ! grep -qx "$node" dead-srun.txt || exit 1
SLURM_NODEID=0 exec "$@" """,
    # A launch on a node of dead-srun.txt ends with 205; the exit codes of the others are the lines of codes.txt, one
    # after the other, the last for ever.
    "mpirun": """
echo "mpirun ${*/#*\\/var_sweep/var_sweep}" >>said.txt
for node in $(cat dead-srun.txt); do [[ " $* " != *[\ ,]"$node":* ]] || exit 205; done
exec 9>lock; flock 9
code=$(head -n 1 codes.txt); [ "$(wc -l <codes.txt)" = 1 ] || sed -i 1d codes.txt
[ "$code" != signal ] || { exec 9>&-; trap 'exit 75' USR1; kill -USR1 $PPID; while :; do sleep 0.1; done; }
while [ $# -gt 0 ]; do
  if [ "$1" = --only ] && [ "$code" = 0 ]; then sed -i "/ $2 /s/[a-z]*$/done/" runs.txt; fi
  shift
done
exit "$code" """,
    "var_sweep": """
[[ " $* " == *" --json "* ]] || exit 0
[ -s runs.txt ] || exit 2
awk 'BEGIN { printf "{\\"runs\\": [" } { printf "%s{\\"id\\": \\"%s\\", \\"state\\": \\"%s\\", \\"reason\\": \\"%s\\"}", \\
     (NR > 1 ? ", " : ""), $1, $NF, ($1 ~ /branch/ ? "waits for step 3" : "") } END { print "]}" }' runs.txt""",
}
OPTIONS = "--oversubscribe --bind-to none --mca mpi_yield_when_idle 1 --mca odls_base_sigkill_timeout 5 "


def run(script, codes, nodes="a,b,c", tasks=2, dead_state=(), dead_srun=(), runs=(), state="RUNNING", expected=0,
        **extra):
    """Ends with that exit code; returns what mpirun and scontrol were told, and the script's output."""
    here = pathlib.Path.cwd()
    for name, text in STUBS.items():
        path = here / "stubs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/usr/bin/env bash\ncd " + str(here) + text)
        path.chmod(0o755)
    for name, lines in (("codes", codes), ("dead-state", dead_state), ("dead-srun", dead_srun), ("said", ()), ("state", [state]),
                        ("runs", [f"{run} planned" for run in runs])):
        (here / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    count = len(nodes.split(","))
    own = {"PATH": f"{here}/stubs:{os.environ['PATH']}", "VARSCALE_HOME": str(SOURCE), "VARSCALE_BIN": f"{here}/stubs",
           "VARSCALE_RESTART_PAUSE_S": "0", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": nodes,
           "SLURM_JOB_NUM_NODES": str(count), "SLURM_NTASKS": str(count * tasks)}
    done = subprocess.run(["bash", SOURCE / f"launch/slurm/{script}.sbatch", "s.yaml"], env=os.environ | own | extra,
                          text=True, capture_output=True, timeout=60, check=False)
    check(done.returncode == expected, f"{script} ended with {done.returncode}, expected {expected}\n{done.stdout}"
                                       f"{done.stderr}")
    return (here / "said.txt").read_text().replace(OPTIONS, "").splitlines(), done.stdout + done.stderr


def require(found, expected):
    check(found == expected, "found:\n  " + "\n  ".join(found) + "\nexpected:\n  " + "\n  ".join(expected))


def nodes_that_die():
    said, _ = run("sweep", [0])
    require(said, ["mpirun -n 6 var_sweep s.yaml"])
    said, _ = run("sweep", [137, 0])  # a rank alone: the same nodes again
    require(said, ["mpirun -n 6 var_sweep s.yaml"] * 2)
    said, _ = run("sweep", [205, 0], dead_state=["b"], dead_srun=["c"])
    require(said, ["mpirun -n 6 var_sweep s.yaml", "mpirun -n 2 --host a:2 var_sweep s.yaml"])
    said, _ = run("sweep", [205, 0], dead_srun=["a"])
    require(said, ["mpirun -n 6 var_sweep s.yaml", "mpirun -n 4 --host b:2,c:2 var_sweep s.yaml"])
    said, output = run("sweep", [205], dead_state=["a", "b", "c"], expected=205)
    require(said, ["mpirun -n 6 var_sweep s.yaml"])
    check("no node of a,b,c answers" in output, output)


def ends():
    said, _ = run("sweep", [1], VARSCALE_RESTARTS="2", expected=1)
    require(said, ["mpirun -n 6 var_sweep s.yaml"] * 3)
    said, _ = run("sweep", [2], expected=2)
    require(said, ["mpirun -n 6 var_sweep s.yaml"])
    said, _ = run("sweep", [75], expected=75)
    require(said, ["mpirun -n 6 var_sweep s.yaml", "scontrol requeue 7"])
    said, output = run("sweep", [75], state="CANCELLED", expected=75)
    require(said, ["mpirun -n 6 var_sweep s.yaml"])
    check("cancelled" in output, output)
    said, _ = run("sweep", ["signal"], expected=75)
    require(said, ["mpirun -n 6 var_sweep s.yaml", "scontrol requeue 7"])


def arrays():
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    said, _ = run("array", ["signal"], expected=75, **task)
    require(said, ["mpirun -n 6 var_sweep s.yaml", "scontrol requeue 7_2"])
    said, _ = run("array", [75], SLURM_JOB_END_TIME="1000", expected=75, **task)  # its limit is near
    require(said, ["mpirun -n 6 var_sweep s.yaml", "scontrol requeue 7_2"])
    said, _ = run("array", [75], **task)  # others have the rest
    require(said, ["mpirun -n 6 var_sweep s.yaml"])


def steps():
    def launches(said):
        check(all(line.startswith("mpirun") for line in said), f"{said}")
        return sorted(said)

    runs = ["r1", "r2", "r3", "r4", "branch"]  # a branch that waits for its trunk is left alone
    said, _ = run("step_per_run", [0], runs=runs, nodes="a,b", VARSCALE_RANKS_PER_RUN="1")
    require(launches(said), [f"mpirun -n 1 --host {node}:1 var_sweep s.yaml --only {run}"
                             for run, node in zip(runs, "aabb")])
    said, output = run("step_per_run", [0], runs=["r1", "r2"], nodes="a,b", dead_srun=["a"])
    check(launches(said)[-1] == "mpirun -n 2 --host b:2 var_sweep s.yaml --only r2", f"{said}\n{output}")
    check(sum("--host a:2" in line for line in said) == 1 and "a does not answer" in output, f"{said}\n{output}")
    said, _ = run("step_per_run", [0], runs=["r1"], nodes="a,b", VARSCALE_RANKS_PER_RUN="4")
    require(said, ["mpirun -n 4 --host a:2,b:2 var_sweep s.yaml --only r1"])
    said, output = run("step_per_run", [0], tasks=4, runs=["r1"], VARSCALE_RANKS_PER_RUN="3", expected=2)
    check(said == [] and "must divide the 4 tasks of a node" in output, output)
    run("step_per_run", [0], expected=2)  # var_sweep cannot read the file
    said, _ = run("step_per_run", [1], runs=["r1"], nodes="a", VARSCALE_RESTARTS="1", expected=1)
    require(said, ["mpirun -n 2 --host a:2 var_sweep s.yaml --only r1"] * 2)
    said, _ = run("step_per_run", [75], runs=["r1"], nodes="a", expected=75)
    require(said, ["mpirun -n 2 --host a:2 var_sweep s.yaml --only r1", "scontrol requeue 7"])


def staging():
    here = pathlib.Path.cwd()
    (here / "t.h5").write_text("tokens")
    (here / "fast").mkdir()
    said, _ = run("sweep", [0], VARSCALE_STAGE=f"{here}/t.h5", SLURM_TMPDIR=f"{here}/fast")
    require(said, [f"mpirun -n 6 var_sweep s.yaml --set defaults.tokens={here}/fast/varscale-7/tokens.h5"])
    check(not list((here / "fast").iterdir()), "the copy is still there")
    said, output = run("sweep", [0], VARSCALE_STAGE=f"{here}/missing.h5", SLURM_TMPDIR=f"{here}/fast", expected=1)
    check(said == [] and "missing.h5 cannot be copied" in output, output)


def main():
    with scratch("batch-scripts"):
        for case in (nodes_that_die, ends, arrays, steps, staging):
            case()
    print("batch scripts: dead nodes, requeues, arrays, a launch for each run, copies")


if __name__ == "__main__":
    main()
