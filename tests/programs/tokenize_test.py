"""var_data tokenize: killed at random instants and started again with another number of ranks it gives the file that
nobody disturbed, to the byte; a signal ends it with exit code 75; a rank that fails alone ends the launch with one
sentence, and the launch after it goes on.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import time

from support import (BAD_INPUT, STOPPED, TINY_TOKENIZER, check, command, environment, kill, make_images, ranks_of, run,
                     scratch, with_chance)

IMAGES, BLOCK, CROPS = 400, 4, 3
OPTIONS = ("tokenize", "--train", "images/train", "--val", "images/val", "--tokenizer", "tok.safetensors",
           "--crops", CROPS, "--batch", BLOCK)


def start(ranks, out):
    return subprocess.Popen(command("var_data", *OPTIONS, "--out", out, ranks=ranks), env=environment(),
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def blocks_done(out):
    """Over all launches."""
    return sum(path.stat().st_size // 34 for path in pathlib.Path(f"{out}.part").glob("done-*"))


def wait_for(process, out, blocks):
    """Until so many blocks are done; False if the process ended before."""
    while blocks_done(out) < blocks:
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    return True


def survives_kills(calm, kills, chance):
    out, killed, total = "killed.h5", 0, IMAGES // BLOCK
    while killed < kills:
        ranks = chance.choice([0, 2])
        process = start(ranks, out)
        done = blocks_done(out)
        if wait_for(process, out, done + chance.randrange(1, max(2, (total - done) // 2))):
            one_alone = ranks > 0 and chance.random() < 0.5
            ranks_there = ranks_of(process, "var_data")
            # To everything, or to one rank, whose launcher ends the others.
            kill(process, [chance.choice(ranks_there)] if one_alone and ranks_there else [])
            killed += 1
        else:
            _, errors = process.communicate()
            check(process.returncode == 0, f"ended with {process.returncode}: {errors}")
            check(pathlib.Path(out).read_bytes() == calm, "the file of the killed launches has other bytes")
            os.remove(out)
        check(not pathlib.Path(out).exists() or pathlib.Path(out).read_bytes() == calm, "an incomplete file")
    before = blocks_done(out)
    done = run("var_data", *OPTIONS, "--out", out, ranks=2)
    check(before == 0 or "rows are there already" in done.stderr, f"began anew:\n{done.stderr}")
    check(pathlib.Path(out).read_bytes() == calm, "the file of the killed launches has other bytes")
    check(not pathlib.Path(f"{out}.part").exists(), "the folder of the work is left")
    print(f"tokenize: {killed} kills at 1 and 2 ranks, same bytes", flush=True)


def stops_on_signal(calm, number, ranks):
    out = "stopped.h5"
    process = start(ranks, out)
    check(wait_for(process, out, 3), "ended before it could be stopped")
    # A launcher would kill the ranks after SIGTERM: one of them is told, and tells the other.
    os.kill(ranks_of(process, "var_data")[-1], number)
    _, errors = process.communicate(timeout=60)
    check(process.returncode == STOPPED, f"signal {number}: {process.returncode}, expected 75\n{errors}")
    check("start it again to go on" in errors and not pathlib.Path(out).exists(), errors)
    kept = blocks_done(out)
    check(kept >= 3, f"{kept} blocks are kept")
    run("var_data", *OPTIONS, "--out", out, ranks=2 - ranks)  # with the other number of ranks
    check(pathlib.Path(out).read_bytes() == calm, "the file of the stopped launch has other bytes")
    os.remove(out)


def a_rank_fails_alone(calm):
    """The second rank finds a truncated image, the first would go on for long. What both have done is not lost."""
    victims = sorted(pathlib.Path("images/train").glob("*/*.png"))
    victim = victims[-1]  # of the last training block
    good = victim.read_bytes()
    victim.write_bytes(good[:len(good) // 2] + bytes(len(good) - len(good) // 2))
    done = run("var_data", *OPTIONS, "--out", "bad.h5", ranks=2, code=BAD_INPUT)
    sentences = [line for line in done.stderr.splitlines() if str(victim) in line]
    check(len(sentences) == 1 and "not a readable image" in sentences[0], done.stderr)
    check("are kept in bad.h5.part" in sentences[0] and not pathlib.Path("bad.h5").exists(), done.stderr)
    victim.write_bytes(good)
    kept = blocks_done("bad.h5")
    check(kept > 0, "nothing is kept of the work of the other rank")
    done = run("var_data", *OPTIONS, "--out", "bad.h5", ranks=2)
    check("rows are there already" in done.stderr, f"began anew:\n{done.stderr}")
    check(pathlib.Path("bad.h5").read_bytes() == calm, "the file of the refused launch has other bytes")
    print(f"tokenize: {kept} blocks kept where a rank failed alone, same bytes", flush=True)


def plans():
    done = run("var_data", *OPTIONS, "--out", "plan.h5", "--plan", ranks=2)
    check(f"{IMAGES} training images x {CROPS} crops and 24 validation images" in done.stdout
          and f"{IMAGES * CROPS + 24} rows of 21 tokens" in done.stdout and "on 2 ranks" in done.stdout, done.stdout)
    check(not list(pathlib.Path(".").glob("plan.h5*")), "a plan has written something")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=4)
    arguments, chance = with_chance(parser, "tokenize")
    with scratch("tokenize"):
        make_images(train=IMAGES, side=20)
        pathlib.Path("tok.yaml").write_text(TINY_TOKENIZER % "1, 2, 4")
        run("var_tokenizer", "train", "tok.yaml", "--images", "images/train", "--out", "tok.safetensors")
        plans()
        run("var_data", *OPTIONS, "--out", "calm.h5")
        calm = pathlib.Path("calm.h5").read_bytes()
        run("var_data", *OPTIONS, "--out", "two.h5", ranks=2)
        check(pathlib.Path("two.h5").read_bytes() == calm, "two ranks give other bytes than one")
        survives_kills(calm, arguments.kills, chance)
        stops_on_signal(calm, signal.SIGTERM, 0)
        stops_on_signal(calm, signal.SIGINT, 2)
        a_rank_fails_alone(calm)


if __name__ == "__main__":
    main()
