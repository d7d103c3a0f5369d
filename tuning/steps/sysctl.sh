# shellcheck shell=bash disable=SC2034
about="listening, links that rest, and windows of long paths"

plan() {
  local net=/proc/sys/net
  least $net/core/somaxconn 4096 \
    "each listener asks for 4,096 waiting connections and the kernel cuts that to this; a full backlog drops handshakes (nstat TcpExtListenOverflows)"
  if [ "$(read_now file $net/ipv4/tcp_syncookies)" = 0 ]; then
    least $net/ipv4/tcp_max_syn_backlog 4096 \
      "without SYN cookies a listener takes only three quarters of so many half-open connections"
  fi
  want file $net/ipv4/tcp_slow_start_after_idle 0 \
    "a link that rested for a round trip's timeout would begin with ten packets again, in the middle of its life"
  want_max $net/ipv4/tcp_rmem 16777216 "what one link can receive in a round trip: 6 MiB is 60 MB/s over 100 ms"
  want_max $net/ipv4/tcp_wmem 16777216 "what one link can send in a round trip: 4 MiB is 40 MB/s over 100 ms"
}

# The last of three numbers at least so much; memory is taken by connections that use it only.
want_max() {
  local lowest middle highest
  # shellcheck disable=SC2046 # three words
  read -r lowest middle highest <<< $(read_now file "$1") || true
  if [ -z "${highest:-}" ]; then
    cannot "$(name_of "$1") is not there"
  elif [ "$highest" -lt "$2" ]; then
    want file "$1" "$lowest $middle $2" "$3"
  else
    want file "$1" "$lowest $middle $highest" "$3"
  fi
}
