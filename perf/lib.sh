# Shared by the profiling scripts: one contender under a scenario's load, and the processes it consists of.
#
# The load, the origin and the contenders are bench-harness's (`hold`): the same that `compare` measures.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

scenario=l7-keepalive
case=
contender=ringway
seconds=5
binary=target/release/ringway
out=perf/out

# The options that all of them take; what is left over is in `rest`.
parse() {
  rest=()
  while [ $# -gt 0 ]; do
    case "$1" in
      --scenario) scenario=$2 ;;
      --case) case=$2 ;;
      --contender) contender=$2 ;;
      --seconds) seconds=$2 ;;
      --binary) binary=$2 ;;
      --out) out=$2 ;;
      -h | --help)
        sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
        exit 0
        ;;
      *)
        rest+=("$1")
        shift
        continue
        ;;
    esac
    [ $# -ge 2 ] || die "$1 needs a value; $(basename "$0") --help says which"
    shift 2
  done
}

need_perf() {
  need_packages perf:linux-perf
  perf record -q -o /dev/null -e "$(clock)" true 2>/dev/null ||
    die "perf may not record here: run as root, or set kernel.perf_event_paranoid to 1 or less"
}

# Cycles where the machine counts them; virtual machines often do not, and then the clock is sampled.
clock() {
  if perf stat -e cycles true 2>&1 | grep -q 'not supported'; then echo cpu-clock; else echo cycles; fi
}

build() {
  need_rust
  [ -x target/release/bench-harness ] || cargo build --release --locked -p bench-harness
  [ "$contender" != ringway ] || [ -x "$binary" ] || cargo build --release --locked
}

# Starts the load on BINARY for LONG seconds beyond its warm-up; sets `holder`, `pid` and `pids` (the process tree).
start_load() {
  local program=$1 long=$2
  held=$(mktemp)
  local command=(target/release/bench-harness hold --scenario "$scenario" --contender "$contender" --seconds "$long")
  [ -z "$case" ] || command+=(--case "$case")
  [ "$contender" != ringway ] || command+=(--program "ringway=$program")
  "${command[@]}" >"$held" 2>"$held.err" &
  holder=$!
  trap stop_load EXIT
  for _ in $(seq 300); do
    [ -s "$held" ] && break
    kill -0 "$holder" 2>/dev/null || die "the load did not start: $(cat "$held.err")"
    sleep 0.1
  done
  pid=$(head -1 "$held" | tr -dc 0-9)
  [ -n "$pid" ] || die "the load did not start: $(cat "$held.err")"
  pids=$(descendants "$pid" | paste -sd,)
}

descendants() {
  echo "$1"
  local child
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do descendants "$child"; done
}

# Waits for the load's end and says what it was; sets `rate`, in requests a second.
end_load() {
  wait "$holder" || die "the load failed: $(cat "$held.err")"
  cat "$held.err"
  rate=$(sed -n 's/.*: \([0-9.]*\) per second.*/\1/p' "$held.err" | head -1)
}

stop_load() {
  kill "$holder" 2>/dev/null || true
  wait "$holder" 2>/dev/null || true
  rm -f "$held" "$held.err"
}
