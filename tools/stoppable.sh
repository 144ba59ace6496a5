# shellcheck shell=bash
# To be sourced by a script that runs programs for minutes: Ctrl-C or SIGTERM ends the one that runs at once, with all that it has started,
# and then the script, which reports before (if it has a function of that name) and exits with 130 or 143.
#   stoppable COMMAND...     runs COMMAND, a program or an exported function, and returns its exit status

# A session has all of them, whatever groups they make: `timeout` makes one, and a shell waits for what it runs before it looks at signals.
stoppable() { # COMMAND...
  local code=0
  setsid bash -uo pipefail -c '"$@"' "$0" "$@" <&0 &
  wait "$!" || code=$?
  return "$code"
}

stop() { # EXIT_STATUS
  trap '' INT TERM
  local first running tries
  first=$(jobs -p)
  for tries in {0..30}; do
    running=$(members "$first")
    [[ -n "$running" ]] || break
    # In a second they have taken away what they have made.
    # shellcheck disable=SC2086  # several
    if ((tries == 0)); then kill -TERM $running 2>/dev/null || true; fi
    # shellcheck disable=SC2086
    if ((tries > 10)); then kill -KILL $running 2>/dev/null || true; fi
    sleep 0.1
  done
  if declare -F report >/dev/null; then report; fi
  exit "$1"
}
# The processes of a session, and the one that is about to begin it.
members() { # SESSION
  local stat line fields
  for stat in /proc/[0-9]*/stat; do
    { read -r line <"$stat"; } 2>/dev/null || continue
    read -ra fields <<<"${stat//[!0-9]/} ${line##*) }"  # id, state, parent, group, session
    if [[ "$1" == "${fields[4]}" || "$1" == "${fields[0]}" ]] && [[ "${fields[1]}" != Z ]]; then echo "${fields[0]}"; fi
  done
}
trap 'stop 130' INT
trap 'stop 143' TERM
