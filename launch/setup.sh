#!/usr/bin/env bash
# Installs what VARscale needs to build and run. Run it as often as you like: what is there is kept.
#
#   ./launch/setup.sh            everything for a CPU build, the tests and the figures
#   ./launch/setup.sh --slurm    besides, Debian's Slurm, for launch/local_slurm.sh
#   ./launch/setup.sh --browser  besides, Debian's Chromium, for the test of the report page
#   ./launch/setup.sh --gpu      besides, the libraries that the programs of the cuda preset load (2.7 GB)
#   ./launch/setup.sh --compare  besides, Python's headers, with which torch.compile builds kernels for launch/bench.sh
#
# Debian packages are installed where this user may (root, or sudo without a password); otherwise the
# missing ones are listed in one line for the administrator. libtorch (the CPU subset of the Python
# wheel, 1.3 GB) and the Python packages for figures and TensorBoard go to .deps/ inside the project.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  "" | --slurm | --browser | --gpu | --compare) ;;
  *) sed -n '2,12p' "$0"; exit 2 ;;
esac

packages=(
  g++ cmake ninja-build ccache pkg-config git
  libfmt-dev libyaml-cpp-dev libcli11-dev nlohmann-json3-dev
  libhdf5-dev libopenmpi-dev openmpi-bin libceres-dev libeigen3-dev
  libvips-dev libzip-dev libgtest-dev libgmock-dev python3-venv
)
[ "${1:-}" != --slurm ] || packages+=(slurmctld slurmd slurm-client munge)
[ "${1:-}" != --browser ] || packages+=(chromium)
venv=.deps/venv
if [ "${1:-}" = --compare ]; then
  python=$venv/bin/python
  [ -x "$python" ] || python=python3
  # A Python that is not Debian's usually has them.
  headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null) || true
  [ -f "$headers/Python.h" ] || packages+=(python3-dev)
fi
torch_packages=(torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
# What the wheel of torch 2.11.0 names as its own, without the compiler triton.
gpu_packages=(
  nvidia-cublas==13.1.0.3 nvidia-cuda-nvrtc==13.0.88 nvidia-cudnn-cu13==9.19.0.56 nvidia-cufft==12.0.0.61
  nvidia-cufile==1.15.1.6 nvidia-curand==10.4.0.35 nvidia-cusolver==12.0.4.66 nvidia-cusparse==12.6.3.3
  nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9 nvidia-nvjitlink==13.0.88 nvidia-nvshmem-cu13==3.4.5
)
python_packages=(numpy==2.2.6 matplotlib==3.10.3 h5py==3.13.0 pandas==2.2.3 tables==3.10.2 safetensors==0.5.3
  tensorboard==2.20.0)
# What Python's torch imports besides: its optimisers and torch.compile, for the model of tests/reference.
python_packages+=(sympy==1.14.0 networkx==3.4.2 jinja2==3.1.6 filelock==4.3.1 fsspec==2026.9.0)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo -n"
  if [ -z "$as_root" ] || sudo -n true 2>/dev/null; then
    echo "setup: installing ${#missing[@]} Debian packages"
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "setup: these Debian packages are missing and this user may not install them; ask an administrator for:" >&2
    echo "  apt-get install ${missing[*]}" >&2
    exit 2
  fi
fi

stamp=$venv/.complete
wanted="${torch_packages[*]} ${python_packages[*]}"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "setup: installing libtorch (1.3 GB) and the Python packages for figures into $venv"
  mkdir -p .deps
  [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
  # torch last and alone: its own dependencies are the 3.4 GB of GPU libraries that a CPU build leaves out.
  "$venv/bin/pip" install -q --disable-pip-version-check "${python_packages[@]}"
  "$venv/bin/pip" install -q --disable-pip-version-check --no-deps "${torch_packages[@]}"
  echo "$wanted" >"$stamp"
fi
gpu_stamp=$venv/.complete-gpu
if [ "${1:-}" = --gpu ] && [ "$(cat "$gpu_stamp" 2>/dev/null)" != "${gpu_packages[*]}" ]; then
  echo "setup: installing the GPU libraries (2.7 GB) into $venv"
  "$venv/bin/pip" install -q --disable-pip-version-check --no-deps "${gpu_packages[@]}"
  echo "${gpu_packages[*]}" >"$gpu_stamp"
fi
echo "setup: complete"
