# What the batch scripts of this folder share: they source it, from the clone's folder. bash 4.4 or newer.
#
#   start_job               # program, threads, signals; VARSCALE_STAGE
#   train FILE.yaml ...     # var_sweep on the allocation, again after a fault; leaves its exit code in $code
#   leave                   # by that code; after 75 the job is queued again
#
# Environment, besides Slurm's (docs/clusters.md):
#   VARSCALE_BIN=build/release/bin    programs
#   VARSCALE_RESTARTS=3               launches after one that ended by a fault, in one allocation
#   VARSCALE_RESTART_PAUSE_S=10       before each of them
#   VARSCALE_NODE_WAIT_S=30           a node that does not answer within this time is dead
#   VARSCALE_STAGE=data/tokens.h5     copy this token file to each node's own disk, and train from there

# Becomes the launch of a command: RANKS HOSTS COMMAND... HOSTS: "n1:8,n2:8"; empty, the whole allocation.
# This is the place for what your site wants.
launch() {
  local ranks=$1 hosts=$2
  shift 2
  exec ./launch/mpirun.sh -n "$ranks" ${hosts:+--host "$hosts"} "$@"
  # Cores: Slurm's for each rank, where ranks share a node.
  #   exec mpirun -n "$ranks" ${hosts:+--host "$hosts"} --map-by "slot:pe=$OMP_NUM_THREADS" --bind-to core "$@"
  # GPUs: ask for --gpus-per-node=8 and let each rank see all of them (the rank's number on its node picks one, and
  #   NCCL reaches the others directly); with --gpus-per-task also --gpu-bind=none.
  # Container (launch/varscale.def): an Open MPI of the same series outside, programs inside.
  #   exec ./launch/mpirun.sh -n "$ranks" ${hosts:+--host "$hosts"} apptainer exec --nv varscale.sif "$@"
  # srun, where Slurm and MPI have the same PMIx; it starts on the whole allocation or on these nodes.
  #   local nodes; nodes=$(sed 's/:[0-9]*//g' <<<"$hosts")
  #   exec srun --mpi=pmix --overlap --kill-on-bad-exit -n "$ranks" ${nodes:+-w "$nodes" -N "$(wc -w <<<"${nodes//,/ }")"} "$@"
}

start_job() {
  program=${VARSCALE_BIN:-build/release/bin}/var_sweep
  restarts=${VARSCALE_RESTARTS:-3}
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
  tasks_per_node=$((SLURM_NTASKS / SLURM_JOB_NUM_NODES))
  stop=0     # 1: a signal has asked for it
  running=() # processes of launches
  staged=()  # further arguments of var_sweep
  trap forward USR1 TERM
  [ -z "${VARSCALE_STAGE:-}" ] || stage "$VARSCALE_STAGE"
}

forward() { # the time limit or a preemption: to the launches, whose ranks then save
  stop=1
  interrupted=1
  [ ${#running[@]} = 0 ] || kill -USR1 "${running[@]}" 2>/dev/null
}

# On all nodes the same path, below Slurm's or the site's scratch folder; removed when the script ends.
stage() {
  scratch=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/varscale-$SLURM_JOB_ID
  trap 'on_each_node rm -rf "$scratch"' EXIT
  echo "== copying $1 to $scratch on each node"
  on_each_node sh -c 'mkdir -p "$2" && cp "$1" "$2/part-$SLURM_NODEID" && mv "$2/part-$SLURM_NODEID" "$2/tokens.h5"' \
    sh "$1" "$scratch" || {
    echo "$1 cannot be copied to $scratch on each node" >&2
    exit 1
  }
  staged=(--set "defaults.tokens=$scratch/tokens.h5")
}
on_each_node() { srun --overlap --mpi=none --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --ntasks="$SLURM_JOB_NUM_NODES" "$@"; }

# One line: those nodes of the allocation, or of the given list, that Slurm calls well and that start a process.
living_nodes() {
  local node
  for node in $(scontrol show hostnames "${1:-$SLURM_JOB_NODELIST}"); do
    ! scontrol show node --oneliner "$node" | grep -Eq 'State=[^ ]*(DOWN|FAIL|NOT_RESPONDING|\*)' || continue
    timeout "${VARSCALE_NODE_WAIT_S:-30}" srun --overlap --mpi=none -w "$node" -N1 -n1 true >/dev/null 2>&1 || continue
    printf '%s ' "$node"
  done
}

# One launch, to its end: RANKS HOSTS ARGUMENTS...
launch_once() {
  local ranks=$1 hosts=$2
  shift 2
  launch "$ranks" "$hosts" "$program" "$@" "${staged[@]}" &
  running=($!)
  interrupted=1
  while [ "$interrupted" = 1 ]; do # a signal ends `wait` early, and the launch goes on
    interrupted=0
    wait "${running[0]}"
    code=$?
  done
  running=()
}

train() {
  local attempt hosts="" ranks=$SLURM_NTASKS nodes
  for ((attempt = 0; attempt <= restarts; ++attempt)); do
    echo "== $(date -u +%FT%TZ) job $SLURM_JOB_ID, restart ${SLURM_RESTART_COUNT:-0} of the job, launch $attempt: $ranks ranks on ${hosts:-$SLURM_JOB_NODELIST}"
    launch_once "$ranks" "$hosts" "$@"
    case $code in 0 | 2 | 75) return ;; esac # 2: the input is at fault, and again would not help
    [ "$stop" = 0 ] || return
    echo "== launch $attempt ended with $code"
    sleep "${VARSCALE_RESTART_PAUSE_S:-10}"
    [ "$stop" = 0 ] || return
    read -ra nodes <<<"$(living_nodes)"
    if [ ${#nodes[@]} = 0 ]; then # one slow answer is not worth the job
      sleep "${VARSCALE_RESTART_PAUSE_S:-10}"
      read -ra nodes <<<"$(living_nodes)"
    fi
    if [ ${#nodes[@]} = 0 ]; then
      echo "== no node of $SLURM_JOB_NODELIST answers"
      return
    fi
    if [ ${#nodes[@]} -lt "$SLURM_JOB_NUM_NODES" ]; then
      hosts=$(printf ",%s:$tasks_per_node" "${nodes[@]}")
      hosts=${hosts#,}
      ranks=$((tasks_per_node * ${#nodes[@]}))
    fi
  done
}

# Whether a 75 comes from the limit or a signal, and not from runs that other jobs have.
time_is_up() { [ "$stop" = 1 ] || [ $((${SLURM_JOB_END_TIME:-9999999999} - $(date +%s))) -lt 900 ]; }

leave() {
  [ "$code" = 75 ] || exit "$code"
  local job=$SLURM_JOB_ID
  # One task of an array has the number of the whole array as its own.
  [ -z "${SLURM_ARRAY_JOB_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  if scontrol show job "$job" | grep -q 'JobState=RUNNING'; then
    echo "== saved; the job is queued again"
    scontrol requeue "$job"
  else # a job that is being cancelled would come back, and stand before the one that follows it
    echo "== saved; the job was cancelled"
  fi
  exit 75
}
