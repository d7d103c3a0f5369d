# shellcheck shell=bash disable=SC2034
about="looking at the network card instead of waiting for its interrupt"

plan() {
  want file /proc/sys/net/core/busy_poll 50 "poll, select and epoll look at the card for 50 µs before they sleep"
  want file /proc/sys/net/core/busy_read 50 "so does a read that blocks"
  advice "neither reaches the edge or the worker: a ring polls a card only if its program registers for it (IORING_REGISTER_NAPI, Linux 6.9), and this one does not. It is for a server on epoll beside a worker"
  [ -n "$(cards)" ] || cannot "no network card here; loopback has none to look at"
}
