"""A sweep that is killed at random instants and started again gives the run that nobody disturbed.

Rows (segment and times aside), weights and optimiser moments are compared to the bit, at one layout.
After some kills the run.h5 that was being written is cut short or overwritten as well: recovery must
not depend on it. SIGUSR1 must end the launch with exit code 75 and a state to go on from.
"""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import time

from support import (STOPPED, check, command, environment, kill, make_images, make_tokens, ranks_of, require_same_run,
                     require_scalars, run, run_folders, scratch, status, with_chance)

SWEEP = """
name: restart
placement: whole
defaults:
  tokens: tokens.h5
  # A checkpoint every 60 ms: kills fall into writing them, too.
  train: {batch: 8, images: 480, save_every_min: 0.001}
  optimizer: {lr: "6e-3 / depth"}
  model: {drop_path: 0.1}
  eval: {points: 8}
runs:
  - {model.depth: [1, 2]}
"""
RUNS = 2


def kill_one_rank(process, chance, output):
    """SIGKILL to a single rank: the launcher has to end the others, who wait for it in vain.

    A rank that was met as it left, with all runs done and nothing to wait for, takes nothing from the launch.
    """
    ranks = ranks_of(process, "var_sweep")
    if not ranks:
        return kill(process)
    kill(process, [chance.choice(ranks)])
    folders = list(pathlib.Path(output, "runs").glob("*"))
    done = [status(folder)["state"] == "done" for folder in folders if (folder / "status.json").exists()]
    check(process.returncode != 0 or sum(done) == len(folders) == RUNS, "the launch of a killed rank ended with 0")


def damage(file, chance):
    """Leaves run.h5 as it is, cuts it short, or fills it with noise; returns what was done."""
    what = chance.choice(["kept", "cut", "noise"])
    if not file.exists() or what == "kept":
        return "kept"
    if what == "cut":
        os.truncate(file, chance.randrange(file.stat().st_size))
    else:
        file.write_bytes(chance.randbytes(4096))
    return what


class Layout:
    """The sweep at one number of ranks (0: no launcher), with its undisturbed result."""

    def __init__(self, ranks):
        self.ranks = ranks
        self.calm = f"calm-{ranks}"
        begin = time.monotonic()
        run("var_sweep", "sweep.yaml", "--set", f"output={self.calm}", ranks=ranks)
        self.seconds = time.monotonic() - begin

    def start(self, output):
        return subprocess.Popen(command("var_sweep", "sweep.yaml", "--set", f"output={output}",
                                        ranks=self.ranks),
                                env=environment(), stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    def compare(self, output):
        for mine, expected in zip(run_folders(output), run_folders(self.calm), strict=True):
            require_same_run(mine, expected, f"{self.ranks} ranks, {mine}")
            require_scalars(mine)

    def until_done(self, output, kills_left, chance, figures):
        """From an empty folder to a finished sweep; returns how often it was killed on the way."""
        kills = 0
        while True:
            process = self.start(output)
            try:
                # The last start is left alone; the others rarely live for a whole sweep.
                wait = None if kills == kills_left else chance.uniform(0.1, 0.7) * self.seconds
                _, errors = process.communicate(timeout=wait)
                check(process.returncode == 0, f"ended with {process.returncode}: {errors}")
                return kills
            except subprocess.TimeoutExpired:
                if self.ranks > 1 and chance.random() < 0.3:
                    kill_one_rank(process, chance, output)
                    figures["one rank alone"] += 1
                else:
                    kill(process)
            kills += 1
            for folder in pathlib.Path(output, "runs").glob("*"):
                if (folder / "status.json").exists() and status(folder)["state"] != "done":
                    figures[damage(folder / "run.h5", chance)] += 1

    def survives(self, kills, chance):
        figures = dict.fromkeys(["kept", "cut", "noise", "one rank alone"], 0)
        done = sweeps = 0
        while done < kills:
            output = f"killed-{self.ranks}"
            done += self.until_done(output, kills - done, chance, figures)
            self.compare(output)
            shutil.rmtree(output)
            sweeps += 1
        print(f"restart: {max(1, self.ranks)} ranks: {done} kills over {sweeps} sweeps, run.h5 then "
              f"{figures['kept']} times kept, {figures['cut']} cut, {figures['noise']} noise, "
              f"{figures['one rank alone']} kills of one rank alone: rows, weights and moments equal "
              f"to the bit", flush=True)

    def stops_on_signal(self):
        output = f"stopped-{self.ranks}"
        process = self.start(output)
        running = None
        while running is None:  # in the middle of a run, seen from outside
            check(process.poll() is None, "the sweep ended before it could be stopped")
            time.sleep(0.02)
            for folder in pathlib.Path(output, "runs").glob("*"):
                if list(folder.glob("checkpoints/step-*/manifest.json")):
                    running = folder
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate(timeout=120)
        check(process.returncode == STOPPED, f"SIGUSR1: {process.returncode}, expected 75\n{errors}")
        states = [status(folder)["state"] for folder in pathlib.Path(output, "runs").glob("*")]
        check("stopped" in states, f"SIGUSR1: states {states}, expected one stopped")
        run("var_sweep", "sweep.yaml", "--set", f"output={output}", ranks=self.ranks)
        self.compare(output)
        print(f"restart: {max(1, self.ranks)} ranks: SIGUSR1 gives 75, and the rest is the same",
              flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="over 1, 2 and 3 ranks")
    arguments, chance = with_chance(parser, "restart")
    with scratch("restart"):
        make_images()
        make_tokens()
        pathlib.Path("sweep.yaml").write_text(SWEEP)
        alone = max(1, arguments.kills // 10)
        two = (arguments.kills - alone) // 2
        for ranks, kills in ((0, alone), (2, two), (3, arguments.kills - alone - two)):
            layout = Layout(ranks)
            layout.survives(kills, chance)
            layout.stops_on_signal()


if __name__ == "__main__":
    main()
