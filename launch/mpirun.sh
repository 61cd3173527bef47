#!/usr/bin/env bash
# mpirun as this project wants it: more ranks than cores allowed, idle ranks yield, root allowed.
#   ./launch/mpirun.sh -n 2 build/release/bin/var_sweep sweeps/quickstart.yaml
#
# After Ctrl-C or SIGTERM the ranks have VARSCALE_GRACE_S seconds (5) to save. OpenMPI waits twice as long
# after any exit code but 0; SIGUSR1 stops a launch in good order without a limit.
set -euo pipefail
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 \
  --mca odls_base_sigkill_timeout "${VARSCALE_GRACE_S:-5}" "$@"
