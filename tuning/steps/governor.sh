# shellcheck shell=bash disable=SC2034,SC2154
about="the clock of the CPUs"

plan() {
  local cpu path found=
  for cpu in $edge_cpus; do
    path=/sys/devices/system/cpu/cpu$cpu/cpufreq
    [ -e "$path/scaling_governor" ] || continue
    found=yes
    if grep -qw performance "$path/scaling_available_governors"; then
      want file "$path/scaling_governor" performance \
        "a core that sleeps between requests is slow when it wakes, if its clock has to rise first"
    else
      cannot "CPU $cpu has no governor \`performance\`: $(cat "$path/scaling_available_governors")"
    fi
    if [ -e "$path/energy_performance_preference" ]; then
      want file "$path/energy_performance_preference" performance "the same, where the CPU itself chooses its clock"
    fi
  done
  if [ -z "$found" ]; then
    local kind
    kind=$(virtual)
    if [ -n "$kind" ]; then
      cannot "there is no cpufreq here: this is a virtual machine ($kind), and the clock is its host's matter"
    else
      cannot "there is no cpufreq here: the driver is missing, or the firmware decides"
    fi
  fi
}
