#!/usr/bin/env bash
# A real Slurm of two nodes on this machine, for tests: slurmctld, two slurmd, munged, all in one folder.
#
#   ./launch/local_slurm.sh start FOLDER     then: export SLURM_CONF=FOLDER/slurm.conf; sinfo; sbatch ...
#   ./launch/local_slurm.sh stop FOLDER
#
# A slurmd that ends by itself is started again, as a service manager does; FOLDER/log says so.
# Needs root and what launch/setup.sh --slurm installs. sbatch and mpirun work in it; `srun --mpi=pmix` does not.
set -euo pipefail

usage() {
  sed -n '2,8p' "$0" >&2
  exit 2
}
[ $# -eq 2 ] || usage
action=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)

stop() {
  local file pid
  for file in "$folder"/keeper-n1.pid "$folder"/keeper-n2.pid "$folder"/ctld.pid "$folder"/munged.pid; do
    [ -f "$file" ] || continue
    pid=$(cat "$file")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 50); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    rm -f "$file"
  done
}

keep_slurmd() {
  local child code
  trap 'kill "$child" && wait "$child"; exit 0' TERM
  while true; do
    slurmd -D -N "$1" &
    child=$!
    code=0
    wait "$child" || code=$?
    echo "[$(date +%FT%T)] slurmd of $1 ended with $code, and is started again"
    sleep 0.5
  done
}

start() {
  local program host memory node
  for program in slurmctld slurmd sbatch munged; do
    command -v "$program" >/dev/null || {
      echo "local_slurm.sh: $program is not installed; run launch/setup.sh --slurm" >&2
      exit 1
    }
  done
  host=$(hostname)
  memory=$(awk '/^MemTotal/ {print int($2 / 1024 / 4)}' /proc/meminfo) # MiB a node
  mkdir -p "$folder"/{state,log,spool-n1,spool-n2}
  head -c 1024 /dev/urandom >"$folder/munge.key"
  chmod 400 "$folder/munge.key"
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed"
  cat >"$folder/slurm.conf" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/ctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/log/ctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=5
JobRequeue=1
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=2 RealMemory=$memory State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=2 RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
  export SLURM_CONF=$folder/slurm.conf
  slurmctld -c
  for node in n1 n2; do
    keep_slurmd "$node" </dev/null >"$folder/log/keeper-$node.log" 2>&1 &
    echo $! >"$folder/keeper-$node.pid"
  done
  for _ in $(seq 60); do
    [ "$(sinfo -h -o %t -N 2>/dev/null | grep -c '^idle$')" = 2 ] && return
    sleep 0.5
  done
  echo "local_slurm.sh: the two nodes are not idle after 30 s; see $folder/log" >&2
  stop
  exit 1
}

case $action in
  start) start ;;
  stop) stop ;;
  *) usage ;;
esac
