# shellcheck shell=bash disable=SC2034
about="transparent huge pages for those who ask"

plan() {
  local thp=/sys/kernel/mm/transparent_hugepage now
  now=$(read_now file $thp/enabled) || { cannot "this kernel has no transparent huge pages"; return; }
  if [ "$now" = always ]; then
    want file $thp/enabled madvise \
      "with \`always\` each core's heap is rounded up to pieces of 2 MiB, so an idle edge holds more than it needs"
  else
    want file $thp/enabled "$now" "it is not \`always\`"
  fi
  now=$(read_now file $thp/defrag) || return 0
  if [ "$now" = always ]; then
    want file $thp/defrag madvise "with \`always\` a thread waits for memory to be tidied in the middle of a request"
  else
    want file $thp/defrag "$now" "it is not \`always\`"
  fi
}
