# shellcheck shell=bash disable=SC2034,SC2154
about="which CPU hears of a packet (IRQ affinity, RPS, RFS, XPS)"

plan() {
  local card found=
  for card in $(cards); do
    found=yes
    of_card "$card"
  done
  [ -n "$found" ] || cannot "no network card has a device of its own here (a container, or loopback only)"
  if pgrep -x irqbalance > /dev/null; then
    advice "irqbalance runs, and will move the interrupts again: systemctl stop irqbalance"
  fi
}

of_card() {
  local card=$1 path=/sys/class/net/$1 rx=() queue irqs=() device cpus=() index=0 irq
  read -ra cpus <<< "$edge_cpus"
  for queue in "$path"/queues/rx-*; do rx+=("$queue"); done
  # A virtio card's interrupts are its parent's.
  device=$(readlink -f "$path/device")
  while [ "$device" != / ] && [ ! -d "$device/msi_irqs" ]; do device=$(dirname "$device"); done
  if [ -d "$device/msi_irqs" ]; then
    for irq in $(find "$device/msi_irqs" -type f -printf '%f\n' | sort -n); do
      # Those that have come more than a few times: a card has some for its configuration alone.
      if [ "$(awk -v n="$irq:" '$1 == n { for (i = 2; $i ~ /^[0-9]+$/; i++) s += $i } END { print s + 0 }' /proc/interrupts)" -gt 100 ]; then
        irqs+=("$irq")
      fi
    done
  fi
  if [ ${#cpus[@]} = 1 ]; then
    cannot "$card: one CPU is the edge's, there is nothing to spread"
    return
  fi
  if [ ${#rx[@]} -ge ${#cpus[@]} ]; then
    for irq in ${irqs[@]+"${irqs[@]}"}; do
      want file "/proc/irq/$irq/smp_affinity_list" "${cpus[index % ${#cpus[@]}]}" \
        "each queue of $card wakes one CPU of the edge, and none has two while another has none"
      index=$((index + 1))
    done
    spread_sending "$card"
    return
  fi
  advice "$card has ${#rx[@]} queue(s) for ${#cpus[@]} CPUs: its packets come in on few CPUs, and the kernel spreads them (RPS)"
  local mask
  mask=$(mask_of "${cpus[@]}")
  least /proc/sys/net/core/rps_sock_flow_entries 32768 \
    "packets go on to the CPU whose thread read the connection last (RFS): an edge's thread does not move"
  for queue in "${rx[@]}"; do
    want file "$queue/rps_cpus" "$mask" "the protocol's work of $card is shared by these CPUs"
    least "$queue/rps_flow_cnt" $((32768 / ${#rx[@]})) "connections of $card that RFS remembers"
  done
  least /proc/sys/net/core/netdev_max_backlog 4096 "packets that wait for another CPU; more are dropped (/proc/net/softnet_stat)"
}

spread_sending() {
  local tx=() queue index=0 cpus=()
  read -ra cpus <<< "$edge_cpus"
  for queue in "/sys/class/net/$1"/queues/tx-*; do tx+=("$queue"); done
  if [ ${#tx[@]} -lt 2 ] || ! cat "${tx[0]}/xps_cpus" > /dev/null 2>&1; then
    cannot "$1: one queue to send by, or a driver without XPS"
    return
  fi
  for queue in "${tx[@]}"; do
    want file "$queue/xps_cpus" "$(mask_of "${cpus[index % ${#cpus[@]}]}")" "a CPU sends by a queue of its own, without a lock that others hold"
    index=$((index + 1))
  done
}
