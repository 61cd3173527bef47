"""Every file that var_eval reads, made wrong in its type, its order, its length or its network: one sentence that names
the file, exit code 2, nothing written. The sentences are printed; launch/prove.sh bad-sets keeps them.
"""

import json
import pathlib
import shutil

import h5py
import numpy as np
import safetensors.numpy

from support import SOURCE, Cases, make_images, run, scratch

SIDE = 16
FEATURES = 2048  # of the FID Inception
PTH = SOURCE / "tests/fixtures/pth"
TRUNCATED = r"bad\.npz: not a zip archive, or a damaged one"
NAMES = json.loads((SOURCE / "tests/fixtures/names.json").read_text())["fid_inception_v3"]["state_dict"]


def fd(reference="images/val", samples="images/val", features="random"):
    return ("var_eval", "fd", "--reference", reference, "--samples", samples,
            *(["--features", features] if features else []))


def truncate(path, to, share=0.5):
    data = pathlib.Path(path).read_bytes()
    pathlib.Path(to).write_bytes(data[: int(len(data) * share)])


def pixels(count=8, side=SIDE):
    return (7 * np.arange(count * side * side * 3) % 251).astype(np.uint8).reshape(count, side, side, 3)


def image_archives(cases):
    good = pixels()
    np.savez("good.npz", arr_0=good)

    def refuses(what, pattern, **arrays):
        np.savez("bad.npz", **arrays)
        cases.refuses(f"images, {what}", fd(samples="bad.npz"), rf"bad\.npz: {pattern}")

    refuses("wrong type", r"arr_0 has values of type <f4, expected uint8 images", arr_0=good.astype("f4") / 255)
    refuses("signed type", r"arr_0 has values of type \|i1, expected uint8 images", arr_0=good.view(np.int8))
    refuses("channels first", r"arr_0 has the shape \[8, 3, 16, 16\], expected images \[N, height, width, 3\]",
            arr_0=good.transpose(0, 3, 1, 2).copy())
    refuses("Fortran order", r"arr_0 is stored column by column \(Fortran order\), expected image by image",
            arr_0=np.asfortranarray(good))
    refuses("no images", r"arr_0 has 0 images", arr_0=good[:0])
    refuses("under another name", r"holds neither images \(arr_0\) nor statistics .*; its entries: images\.npy",
            images=good)
    np.savez("bad.npz", arr_0=pixels(8, 2 * SIDE))
    cases.refuses("images, another size", fd(samples="bad.npz"),
                  r"images/val holds images of 16 x 16 pixels, bad\.npz of 32 x 32")
    np.save("bad.npy", good)
    cases.refuses("images, an array and no archive", fd(samples="bad.npy"), r"bad\.npy: not a zip archive")
    for share in (0.5, 0.9999):
        truncate("good.npz", "bad.npz", share)
        cases.refuses(f"images, truncated to {100 * share:g} %", fd(samples="bad.npz"), TRUNCATED)
    data = bytearray(pathlib.Path("good.npz").read_bytes())
    data[len(data) // 2] ^= 1
    pathlib.Path("bad.npz").write_bytes(data)
    cases.refuses("images, a bit flipped", fd(samples="bad.npz"), r"bad\.npz: entry 'arr_0\.npy' is damaged")


def statistics(cases):
    mu, sigma = np.zeros(FEATURES), np.eye(FEATURES)
    np.savez("good.npz", mu=mu, sigma=np.asfortranarray(sigma))
    run(*fd(reference="good.npz"))  # statistics may have either order

    def refuses(what, pattern, **arrays):
        np.savez("bad.npz", **arrays)
        cases.refuses(f"statistics, {what}", fd(reference="bad.npz"), rf"bad\.npz: {pattern}")

    refuses("wrong type of the mean", r"mu has values of type <i8, expected float64 or float32",
            mu=mu.astype(int), sigma=sigma)
    refuses("wrong type of the covariance", r"sigma has values of type <f2, expected float64 or float32",
            mu=mu, sigma=sigma.astype("f2"))
    refuses("big-endian", r"mu has values of type >f8, expected float64 or float32", mu=mu.astype(">f8"), sigma=sigma)
    refuses("mean and covariance exchanged", r"mu has the shape \[2048, 2048\], expected a mean \[features\]",
            mu=sigma, sigma=mu)
    refuses("covariance in one row", r"sigma has the shape \[4194304\], expected \[2048, 2048\]",
            mu=mu, sigma=sigma.reshape(-1))
    refuses("no covariance", r"holds mu without sigma, expected both or neither", mu=mu)
    refuses("not symmetric", r"sigma differs from its transpose by up to 1", mu=mu, sigma=np.tri(FEATURES))
    refuses("not finite", r"mu holds a value that is not a finite number", mu=mu * np.nan, sigma=sigma)
    refuses("another network", r"mu has 768 features, the network has 2048; expected statistics of the same network",
            mu=np.zeros(768), sigma=np.eye(768))
    for share in (0.5, 0.9999):
        truncate("good.npz", "bad.npz", share)
        cases.refuses(f"statistics, truncated to {100 * share:g} %", fd(reference="bad.npz"), TRUNCATED)
    cases.refuses("statistics in the place of samples", fd(samples="good.npz"),
                  r"--samples good\.npz: holds statistics, but no images \(arr_0\), which the samples must be")


def kept_features(cases):
    run("var_eval", "features", "--images", "images/val", "--out", "good.h5", "--features", "random")

    def refuses(what, pattern, change):
        shutil.copy("good.h5", "bad.h5")
        with h5py.File("bad.h5", "r+") as file:
            change(file)
        cases.refuses(f"kept features, {what}", fd(reference="bad.h5"), rf"bad\.h5: {pattern}")

    def replace(name, change):
        def with_file(file):
            values = change(file[name][:])
            del file[name]
            file[name] = values
        return with_file

    refuses("wrong type", r"/features does not hold 32-bit floats", replace("features", lambda x: x.astype("f8")))
    refuses("wrong type of the spatial ones", r"/spatial does not hold 32-bit floats",
            replace("spatial", lambda x: x.astype("f2")))
    refuses("features first", r"/features has shape \[2048, 10\]; expected a row for each of its 10 images",
            replace("features", np.transpose))
    refuses("no features", r"/features is missing", lambda file: file.pop("features"))
    refuses("of another kind", r"is not a feature file",
            lambda file: file.attrs.__setitem__("format", "varscale tokens"))
    truncate("good.h5", "bad.h5")
    cases.refuses("kept features, truncated", fd(reference="bad.h5"), r"bad\.h5")
    pathlib.Path("bad.h5").write_text("no features\n")
    cases.refuses("kept features, no HDF5", fd(reference="bad.h5"), r"bad\.h5: is not an HDF5 file")
    cases.refuses("kept features, another network", (*fd(reference="good.h5"), "--seed", 8),
                  r"--reference good\.h5: holds features of random inception, seed 0 .*expected one network")
    run("var_data", "synth", "--out", "large", "--train", 10, "--val", 10, "--side", 2 * SIDE)
    cases.refuses("kept features, another size", fd(reference="good.h5", samples="large/val"),
                  r"good\.h5 holds images of 16 x 16 pixels, large/val of 32 x 32")


def weights(cases):
    good = {name: np.zeros(shape, np.int64 if dtype == "int64" else np.float32) for name, _, dtype, shape in NAMES}

    def save(name, change=lambda weights: None):
        values = dict(good)
        change(values)
        safetensors.numpy.save_file(values, name)

    def refuses(what, pattern, change):
        save("bad.safetensors", change)
        cases.refuses(f"weights, {what}", fd(features="bad.safetensors"), rf"bad\.safetensors: {pattern}")

    def turned(name, change):
        return lambda values: values.__setitem__(name, np.ascontiguousarray(change(values[name])))

    conv = "Mixed_5b.branch5x5_2.conv.weight"
    refuses("wrong type", rf"{conv} has dtype Char, expected floating point", turned(conv, lambda x: x.astype(np.int8)))
    refuses("channels last, as TensorFlow has them", rf"{conv} has shape \[5, 5, 48, 64\], expected \[64, 48, 5, 5\]",
            turned(conv, lambda x: x.transpose(2, 3, 1, 0)))
    refuses("transposed", r"fc\.weight has shape \[2048, 1008\], expected \[1008, 2048\]",
            turned("fc.weight", np.transpose))
    refuses("not finite", rf"{conv} holds a value that is not a finite number", turned(conv, lambda x: x + np.inf))
    refuses("another network's classes", r"fc\.weight has shape \[1000, 2048\], expected \[1008, 2048\]",
            turned("fc.weight", lambda x: x[:1000]))
    refuses("one tensor missing", rf"holds no tensor {conv}", lambda values: values.pop(conv))
    refuses("one tensor too many", r"unexpected tensor AuxLogits\.fc\.weight; the FID Inception v3 has none",
            lambda values: values.update({"AuxLogits.fc.weight": np.zeros(2, np.float32)}))
    safetensors.numpy.save_file({"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}, "bad.safetensors")
    cases.refuses("weights, another network", fd(features="bad.safetensors"),
                  r"bad\.safetensors: holds no tensor Conv2d_1a_3x3\.conv\.weight; expected the FID Inception v3")
    save("good.safetensors")
    for share in (0.00001, 0.5, 0.9999):
        truncate("good.safetensors", "bad.safetensors", share)
        cases.refuses(f"weights, truncated to {100 * share:g} %", fd(features="bad.safetensors"),
                      r"bad\.safetensors: .*truncated")

    for form, file in ("torch", "var_d1_tiny"), ("torch before 1.6", "legacy_format"):
        shutil.copy(PTH / f"{file}.pth", "good.pth")
        cases.refuses(f"weights of {form}, another network", fd(features="good.pth"),
                      r"good\.pth: holds no tensor Conv2d_1a_3x3\.conv\.weight")
        truncate("good.pth", "bad.pth")
        cases.refuses(f"weights of {form}, truncated", fd(features="bad.pth"), r"bad\.pth: ")
    pathlib.Path("bad.pth").write_text("no weights, but a text\n")
    cases.refuses("weights, a text", fd(features="bad.pth"), r"bad\.pth: ")
    cases.refuses("weights, no file", fd(features="none.pth"),
                  r"--features none\.pth: no such file; expected the FID Inception")


def main():
    cases = Cases()
    with scratch("bad-sets"):
        make_images(train=10, val=10, side=SIDE)
        for group in (image_archives, statistics, kept_features, weights):
            group(cases)
        for what, sentence in cases.said:
            print(f"{what}\n    {sentence}")
        cases.end()
    print(f"bad sets: {len(cases.said)} mistakes: exit code 2, one sentence that names the file, nothing written")


if __name__ == "__main__":
    main()
