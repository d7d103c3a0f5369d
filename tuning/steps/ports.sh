# shellcheck shell=bash disable=SC2034
about="outgoing connections of a worker's host to one server"

plan() {
  local net=/proc/sys/net/ipv4 lowest highest
  # shellcheck disable=SC2046 # two words
  read -r lowest highest <<< $(read_now file $net/ip_local_port_range) || true
  if [ -z "${highest:-}" ]; then
    cannot "net.ipv4.ip_local_port_range is not there"
  elif [ $((highest - lowest)) -lt 50000 ]; then
    want file $net/ip_local_port_range "10240 65535" \
      "a server that closes each connection takes a port for a minute: 28,232 ports are 470 connections a second"
    advice "a program that listens on a port above 10240 and starts later may find it taken: name it in net.ipv4.ip_local_reserved_ports"
  else
    want file $net/ip_local_port_range "$lowest $highest" "it is wide enough"
  fi
  want file $net/tcp_tw_reuse 1 \
    "such a port is used again after a second, where both ends have TCP timestamps; 2, the default, is for loopback alone"
  if [ "$(read_now file $net/tcp_timestamps)" = 0 ]; then
    cannot "net.ipv4.tcp_timestamps is 0, so tcp_tw_reuse changes nothing"
  fi
}
