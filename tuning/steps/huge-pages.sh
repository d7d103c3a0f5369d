# shellcheck shell=bash disable=SC2034,SC2154
about="pages of 2 MiB, set aside for the edge's heap"

# mimalloc asks for its heap in pieces of 1 GiB, and gets such a piece in huge pages only if that many are free. So it is told to
# ask for 128 MiB (in KiB); 128 pages are two of those, and what goes beyond them is in common pages.
plan() {
  local unit=/run/systemd/system/ptth-edge.service.d/60-ptth-huge-pages.conf
  local environment="MIMALLOC_ALLOW_LARGE_OS_PAGES=1 MIMALLOC_ARENA_RESERVE=131072"
  least /proc/sys/vm/nr_hugepages 128 "256 MiB, which nobody else can use then"
  if has_systemd; then
    want drop-in "$unit" "[Service]\\nEnvironment=$environment" "mimalloc takes such pages, and common ones when there are none"
    advice "a running edge goes on as it is: systemctl restart ptth-edge"
  else
    cannot "systemd does not run here; start the edge with $environment in its environment"
  fi
  advice "without this step mimalloc asks for transparent huge pages, which cost nobody anything while they are not needed"
  advice "what is in these pages is not given back to the system, and not in the resident size that \`memory_max\` is held against"
}
