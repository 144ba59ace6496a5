#!/usr/bin/env bash
# Real processes on a GPU: every layout gives the same answer; a worker that is killed or stopped is named, and the service comes back.
#   tests/gpu/processes.sh BIN_DIRECTORY [DEVICE [COLLECTIVES]]      DEVICE: cuda:0, or emulated; COLLECTIVES: staged or nccl
# All ranks share the one card. NCCL refuses that unless it takes them for different hosts (docs/nccl.md).
set -euo pipefail
bin=$1
device=${2:-cuda:0}
collectives=${3:-staged}
export NCCL_NET=Socket NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1 NCCL_MAX_CTAS=1 NCCL_NVLS_ENABLE=0 NCCL_MNNVL_ENABLE=0
export NCCL_RAS_ENABLE=0
model=${MODEL:-random:llama?hidden=256,layers=4,heads=8,kv_heads=4,head_dim=32,ffn=704,vocab=512:bf16}
scratch=$(mktemp -d)
trap 'kill -KILL $(jobs -p) 2>/dev/null || true; rm -rf "$scratch"' EXIT
failed=0
started=0

start() { # TENSOR_PARALLEL PIPELINE_PARALLEL
  rm -f "$scratch/ports"
  "$bin/bellwether-coordinator" --model "$model" --listen 127.0.0.1:0 --worker-listen 127.0.0.1:0 \
    --port-file "$scratch/ports" --tensor-parallel "$1" --pipeline-parallel "$2" --context-tokens 256 \
    --log-level warning 2>"$scratch/log" &
  coordinator=$!
  for _ in $(seq 100); do [[ -s "$scratch/ports" ]] && break; sleep 0.1; done
  client=$(awk '$1 == "client" { print $2 }' "$scratch/ports")
  workers=() names=()
  for _ in $(seq $(($1 * $2))); do start_worker; done
}
start_worker() {
  started=$((started + 1))  # here: what stands in a background command is not the shell's own
  NCCL_HOSTID="rank$started" "$bin/bellwether-worker" --model "$model" --collectives "$collectives" --coordinator "$(awk '$1 == "worker" { print $2 }' "$scratch/ports")" \
    --device "$device" --name "gpu-$started" --log-level warning &
  workers+=($!)
  names+=("gpu-$started")
}
# Sends SIGNAL to worker INDEX while they are at work: it has to be named, on a card within the five seconds that are promised, which
# worker_loss_test holds. Then another one takes its place.
lose() { # SIGNAL INDEX
  local began why=unnamed request
  timeout 120 "$bin/bellwether" generate --connect "$client" --prompt-ids 1,2,3 --max-tokens 200 >"$scratch/answer" 2>/dev/null &
  request=$!
  for _ in $(seq 600); do [[ -s "$scratch/answer" ]] && break; sleep 0.1; done
  began=$(date +%s%N)
  kill -"$1" "${workers[$2]}"
  for _ in $(seq 600); do
    if grep -q "has ended: worker ${names[$2]} " "$scratch/log"; then why=named && break; fi
    sleep 0.1
  done
  printf 'processes: worker lost by SIG%s: %s (%d ms)\n' "$1" "$why" $((($(date +%s%N) - began) / 1000000))
  wait "$request" || true
  if [[ "$why" != named ]]; then cat "$scratch/log" >&2; failed=1; fi
  kill -KILL "${workers[$2]}" 2>/dev/null || true
  start_worker
  began=$(date +%s%N)
  again=$(ask) || again=nothing
  if [[ "$again" == "${expected:-}" ]]; then word=equal; else word=DIFFERS; failed=1; fi
  printf 'processes: another joined: %s (%d ms)\n' "$word" $((($(date +%s%N) - began) / 1000000))
}
stop() { kill "$coordinator" "${workers[@]}" 2>/dev/null || true; wait "$coordinator" "${workers[@]}" 2>/dev/null || true; }
# Scores once the cluster serves, for which it has a minute; gives the log-probabilities.
ask() {
  local answer
  for _ in $(seq 240); do
    if answer=$(timeout 60 "$bin/bellwether" score --connect "$client" --token-ids "$(seq -s, 1 90)" --json 2>"$scratch/why"); then
      sed -n '/"logprobs"/,/]/p' <<<"$answer"
      return
    fi
    grep -qE 'not serving|UNAVAILABLE|stopped|lost' "$scratch/why" || break
    sleep 0.25
  done
  cat "$scratch/why" >&2
  return 1
}

for layout in "1 1" "2 1" "1 2" "2 2"; do
  read -r ranks stages <<<"$layout"
  start "$ranks" "$stages"
  began=$(date +%s%N)
  if answer=$(ask); then
    expected=${expected:-$answer}
    if [[ "$answer" == "$expected" ]]; then word=equal; else word=DIFFERS; failed=1; fi
  else
    word=FAILED; failed=1
  fi
  printf 'processes: %s ranks x %s stages on %s, %s: %s (%d ms from start to answer)\n' "$ranks" "$stages" "$device" "$collectives" "$word" \
    $((($(date +%s%N) - began) / 1000000))
  if [[ "$layout" == "2 2" ]]; then
    lose KILL 1
    lose STOP 2
  fi
  stop
done
exit $failed
