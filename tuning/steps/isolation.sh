# shellcheck shell=bash disable=SC2034,SC2154
about="nobody else on the edge's CPUs"

plan() {
  local others=() cpu list slice
  for cpu in $online; do
    # shellcheck disable=SC2086 # a list of words
    is_in "$cpu" $edge_cpus || others+=("$cpu")
  done
  if [ ${#others[@]} = 0 ]; then
    cannot "the edge has all CPUs; leave one to the others: --cpus, and \`cores\` in edge.toml"
    return
  fi
  list=$(IFS=' '; echo "${others[*]}")
  if ! has_systemd || [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
    cannot "no systemd with cgroup version 2 here, so no slice can be kept off CPUs; use taskset, or the cpuset of your container runtime"
  else
    for slice in system.slice user.slice init.scope; do
      want property "$slice:AllowedCPUs" "$list" "what is not the edge runs on the other CPUs"
    done
    want property "ptth.slice:AllowedCPUs" "$edge_cpus" "the edge's own slice (Slice=ptth.slice in its unit)"
    advice "kernel threads and interrupts stay: see the step irq, and boot with isolcpus=managed_irq,domain,$(IFS=,; echo "${edge_cpus// /,}") nohz_full=… rcu_nocbs=… where that counts; both are fixed at boot, so nothing here sets them"
  fi
}
