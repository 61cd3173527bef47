"""Python's torch from the CPU subset of its wheel.

The wheel's Python module links GPU libraries that a CPU build does not install. This makes hollow ones, in which
every symbol that torch wants is there and none is ever called.

    environment = torch_python.environment(folder)      # of a process in which `import torch` works
"""

import os
import re
import subprocess
import sysconfig
from pathlib import Path

# What the wheel and the system have.
PRESENT = re.compile(r"(lib(c|m|dl|rt|pthread|util|stdc\+\+|gcc_s|gomp|torch\w*|c10\w*|shm|cudart|cupti)"
                     r"|ld-linux[\w-]*)\.so")
READ = ("libtorch_cuda.so", "libtorch_nvshmem.so", "libtorch_python.so", "libc10_cuda.so")


def wanted(lib):
    """{library: {symbol: version or ''}} of those that are absent."""
    libraries, versions, symbols = set(), {}, set()
    for name in READ:
        text = subprocess.run(["readelf", "-W", "-d", "-V", "--dyn-syms", lib / name],
                              capture_output=True, text=True, check=True).stdout
        libraries |= {each for each in re.findall(r"\(NEEDED\).*\[(.+)\]", text) if not PRESENT.match(each)}
        file = None
        for line in text.splitlines():
            if found := re.search(r"Version: \d+\s+File: (\S+)", line):
                file = found[1]
            elif found := re.search(r"Name: (\S+)\s+Flags:", line):
                versions[found[1]] = file
            elif found := re.search(r"\sUND\s+(\S+)", line):
                symbols.add(found[1])
    result = {library: {} for library in libraries}
    anywhere = next(iter(sorted(libraries)))
    for symbol in symbols:
        name, _, version = symbol.partition("@")
        if version:
            if versions.get(version) in result:
                result[versions[version]][name] = version
        elif re.match(r"cu|nccl|nvshmem", name):
            result[anywhere][name] = ""
    return result


def environment(folder):
    lib = Path(sysconfig.get_paths()["platlib"]) / "torch" / "lib"
    for library, symbols in wanted(lib).items():
        versions = sorted(set(symbols.values()) - {""})
        lines = [f".globl {name}\n.type {name}, @function\n{name}: ret" for name in symbols]
        source = Path(folder) / "hollow.s"
        source.write_text(".text\n" + "\n".join(lines) + '\n.section .note.GNU-stack,"",@progbits\n')
        options = [f"-Wl,-soname,{library}"]
        if versions:
            script = Path(folder) / "hollow.map"
            of_version = {v: "; ".join(name for name, w in symbols.items() if w == v) for v in versions}
            script.write_text("".join(f"{v} {{ global: {names}; }};\n" for v, names in of_version.items()))
            options.append(f"-Wl,--version-script={script}")
        subprocess.run(["gcc", "-shared", "-nostdlib", source, "-o", Path(folder) / library, *options], check=True)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}
