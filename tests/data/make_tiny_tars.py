"""Makes many tiny images as tar shards, to see what listing them costs.

    python tests/data/make_tiny_tars.py 200000 /tmp/tiny        # twenty shards, half a gigabyte
    OMP_NUM_THREADS=1 /usr/bin/time -v build/release/bin/var_data tokenize --train /tmp/tiny --plan ...
"""
import io
import pathlib
import sys
import tarfile

from PIL import Image

count, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
SHARD = 10_000
folder.mkdir(parents=True)
pictures = []
for i in range(64):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (4 * i, 3 * i, 2 * i)).save(stream, "JPEG")
    pictures.append(stream.getvalue())
for begin in range(0, count, SHARD):
    with tarfile.open(folder / f"train-{begin // SHARD:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in range(begin, min(begin + SHARD, count)):
            for suffix, data in (("jpg", pictures[i % 64]), ("cls", str(i % 1000).encode())):
                member = tarfile.TarInfo(f"n{i % 1000:08d}_{i:07d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
