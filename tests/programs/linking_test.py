"""Which library answers for linear algebra, and that the fits need no torch.

libtorch_cpu exports sgemm_ and its kin (MKL) and calls some of them by name. Another BLAS that comes
earlier on the link line would answer instead, at a fraction of the speed and with other roundings.
"""

import re
import subprocess

from support import BIN, check, command, environment, scratch

TORCH_PROGRAMS = ["var_sweep", "var_sample", "var_tokenizer", "var_data", "var_eval"]
BINDING = re.compile(r"binding file (\S+) \[0\] to (\S+) \[0\]: normal symbol `((?:[sd](?:gemm|potrf|gesdd))_)'")


def needed(program):
    lines = subprocess.run(["readelf", "-d", BIN / program], text=True, capture_output=True, check=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", lines)


def all_libraries(program):
    lines = subprocess.run(["ldd", BIN / program], text=True, capture_output=True, check=True).stdout
    return [line.split()[0] for line in lines.splitlines() if line.split()]


def bindings(program, *args):
    """{(symbol, library)} that the loader bound for a run of the program; every symbol at its start."""
    process = subprocess.Popen(command(program, *args), text=True, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, errors="replace",
                               env=environment(LD_DEBUG="bindings", LD_BIND_NOW="1"))
    bound = {(match[3], match[2].rsplit("/", 1)[-1]) for match in map(BINDING.search, process.stderr) if match}
    check(process.wait() == 0, f"{program} under LD_DEBUG ended with {process.returncode}")
    return bound


def main():
    for program in TORCH_PROGRAMS:
        libraries = needed(program)
        check("libtorch_cpu.so" in libraries, f"{program} needs {libraries}")
        earlier = libraries[: libraries.index("libtorch_cpu.so")]
        check(not any(re.search(r"blas|lapack|mkl", name) for name in libraries), f"{program} needs {libraries}")
        check(not earlier, f"{program}: {earlier} come before libtorch_cpu.so")
        bound = bindings(program, "--help")
        check(bound, f"{program}: the loader bound no BLAS symbol; nothing was tested")
        for symbol, library in bound:
            check(library == "libtorch_cpu.so", f"{program}: {symbol} is answered by {library}")
        print(f"linking: {program}: {', '.join(sorted(symbol for symbol, _ in bound))} from libtorch_cpu.so")

    foreign = [name for name in all_libraries("var_fit") if re.search("torch|c10|mkl|libmpi", name)]
    check(not foreign, f"var_fit loads {foreign}")
    print(f"linking: var_fit: {len(all_libraries('var_fit'))} libraries, none of torch or MPI")


if __name__ == "__main__":
    with scratch("linking"):
        main()
