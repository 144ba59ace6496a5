#!/usr/bin/env bash
# monitor.sh BIN: Prometheus with the project's rules, and Grafana where it is installed, on the cluster of this machine: the one that
# listens for Prometheus at its usual port, else a new one with the demo model. BIN is the folder of the built programs. ^C ends it all.
set -euo pipefail

bin="${1:?usage: tools/monitor.sh BIN}"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cluster=127.0.0.1:7490 prometheus=127.0.0.1:9090 grafana=127.0.0.1:3000
data="$root/build/monitor"
mkdir -p "$data"

# Whatever ends, ends the others.
started=()
trap 'trap - EXIT; kill "${started[@]}" 2>/dev/null || true; wait' EXIT
trap 'exit 130' INT TERM
listens() { (exec 3<>"/dev/tcp/${1/:/\/}") 2>/dev/null; }

for taken in "$prometheus" "$grafana"; do
  if listens "$taken"; then echo "monitor: something listens on $taken already" >&2 && exit 1; fi
done
usr="$("$root/tools/fetch_prometheus.sh")"
if listens "$cluster"; then
  echo "monitor: watching the cluster at $cluster" >&2
else
  "$bin/bellwether" up --model "$("$root/tools/fetch_demo_model.sh")" --tensor-parallel 3 --listen 127.0.0.1:7400 --metrics-listen "$cluster" &
  started+=($!)
fi

"$usr/bin/prometheus" --config.file="$root/monitoring/prometheus.yml" --storage.tsdb.path="$data/prometheus" \
  --web.listen-address="$prometheus" --web.local-assets="$usr/share/prometheus/web" --log.level=warn &
started+=($!)

pages="
  Prometheus    http://$prometheus/graph
  alerts        http://$prometheus/alerts (docs/runbook.md says what to do)
  what is seen  http://$prometheus/targets"
home=/usr/share/grafana
if [[ -d "$home" ]] && server="$(command -v grafana)"; then
  BELLWETHER_DASHBOARDS="$root/monitoring/grafana/dashboards" BELLWETHER_PROMETHEUS="http://$prometheus" \
    GF_PATHS_PROVISIONING="$root/monitoring/grafana/provisioning" GF_PATHS_DATA="$data/grafana" GF_SERVER_HTTP_ADDR="${grafana%:*}" \
    GF_AUTH_ANONYMOUS_ENABLED=true GF_LOG_LEVEL=warn GF_ANALYTICS_REPORTING_ENABLED=false \
    "$server" server --homepath "$home" >"$data/grafana.log" 2>&1 &
  started+=($!)
  pages+="
  Grafana       http://$grafana/d/bellwether-serving, bellwether-capacity, bellwether-cluster"
else
  pages+="
  Grafana is not installed here: its dashboards are monitoring/grafana/dashboards/*.json"
fi
cat >&2 <<TEXT
$pages
  talk to it    $bin/bellwether chat --connect 127.0.0.1:7400
  ^C ends it all.

TEXT
wait -n "${started[@]}"
