# shellcheck shell=bash
# One setting: how it is read, shown, written and put back. What is set never enters; that is in steps/.
#
# A setting has a kind and a target:
#   file      a file of the kernel (/proc/sys, /sys, /proc/irq); its value is its text
#   drop-in   a file of systemd's that is ours alone; its value is its text with \n between lines, or `absent`
#   property  UNIT:NAME, a property of a unit at run time
#
# The state has one file for each applied step: line 1 the boot, then a line for each setting with tabs between KIND, TARGET,
# BEFORE, AFTER. A line is there before its write is tried, so whatever interrupts leaves nothing that nobody knows of.

# $step, $state, $plain, $edge_cpus and $online are tune's; $about is the step's own.
# shellcheck disable=SC2154

as_root_only() {
  [ "$(id -u)" = 0 ] || { echo "tuning/tune: $command writes to the kernel: run it as root (show and status need not)" >&2; exit 1; }
}

lock() {
  mkdir -p "$state"
  exec 9> "$state/lock"
  flock -n 9 || { echo "tuning/tune: another one is at work in $state" >&2; exit 1; }
}

# "0-2,5" as "0 1 2 5"; fails where it is no such list.
list_of() {
  local part from to out=()
  [[ $1 =~ ^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$ ]] || return 1
  for part in ${1//,/ }; do
    from=${part%-*} to=${part#*-}
    [ "$from" -le "$to" ] && [ "$to" -lt 4096 ] || return 1
    while [ "$from" -le "$to" ]; do out+=("$from"); from=$((from + 1)); done
  done
  echo "${out[*]}"
}

# CPUs as the kernel's hexadecimal mask, groups of 32 bits with commas between, as it prints it.
mask_of() {
  local cpu group groups=() text
  for cpu; do
    group=$((cpu / 32))
    groups[group]=$((${groups[group]:-0} | 1 << (cpu % 32)))
  done
  text=
  for ((group = ${#groups[@]} > 0 ? $(printf '%s\n' "${!groups[@]}" | tail -n 1) : 0; group >= 0; group--)); do
    if [ -z "$text" ]; then text=$(printf '%x' "${groups[group]:-0}"); else text+=$(printf ',%08x' "${groups[group]:-0}"); fi
  done
  echo "$text"
}

# What is there now. Blanks are as one; of a choice in brackets, such as `always [madvise] never`, what is chosen. Masks come
# without leading zeros. Fails where there is nothing to read.
read_now() {
  local kind=$1 target=$2 text
  case $kind in
    file)
      text=$(cat "$target" 2> /dev/null) || return 1
      text=$(tr -s '\t\n ' '   ' <<< "$text" | sed 's/^ //; s/ $//')
      if [[ $text =~ \[([^]]+)\] ]]; then text=${BASH_REMATCH[1]}; fi
      if [[ $target == *_cpus && $text =~ ^[0,]*(.*)$ ]]; then text=${BASH_REMATCH[1]:-0}; fi
      printf '%s\n' "$text"
      ;;
    drop-in)
      if [ -e "$target" ]; then sed ':a; N; $!ba; s/\n/\\n/g' "$target"; else echo absent; fi
      ;;
    property)
      text=$(systemctl show --property "${target#*:}" --value "${target%%:*}" 2> /dev/null) || return 1
      text=${text// /,}
      list_of "$text" || printf '%s\n' "$text"
      ;;
  esac
}

# Writes it and says so; why not, where it does not work.
write_now() {
  local kind=$1 target=$2 value=$3 told
  case $kind in
    file)
      told=$( (printf '%s\n' "$value" > "$target") 2>&1) || { echo "${told##*: }"; return 1; }
      ;;
    drop-in)
      if [ "$value" = absent ]; then
        told=$(rm -f "$target" 2>&1) || { echo "$told"; return 1; }
        rmdir "$(dirname "$target")" 2> /dev/null || true # others may have files there
      else
        told=$(mkdir -p "$(dirname "$target")" 2>&1 && printf '%b\n' "$value" 2>&1 > "$target") || { echo "$told"; return 1; }
      fi
      systemctl daemon-reload 2>&1 || return 1
      ;;
    property)
      systemctl set-property --runtime "${target%%:*}" "${target#*:}=$value" 2>&1 || return 1
      ;;
  esac
}

# /proc/sys/net/core/somaxconn is net.core.somaxconn.
name_of() {
  local name=$1
  case $name in /proc/sys/*) name=${name#/proc/sys/}; name=${name//\//.} ;; esac
  printf '%s' "$name"
}

# ---- what a step says in its `plan`; $act decides what becomes of it ----

# want KIND TARGET VALUE WHY
want() {
  local now
  if ! now=$(read_now "$1" "$2"); then
    cannot "$(name_of "$2") is not there"
    return
  fi
  "$act" "$1" "$2" "$now" "$3" "$4"
}

# least TARGET NUMBER WHY: a larger number stays.
least() {
  local now
  now=$(read_now file "$1") || { cannot "$(name_of "$1") is not there"; return; }
  if [[ $now =~ ^[0-9]+$ ]] && [ "${#now}" -le 18 ] && [ "$now" -lt "$2" ]; then
    "$act" file "$1" "$now" "$2" "$3"
  else
    "$act" file "$1" "$now" "$now" "$3"
  fi
}

# What cannot be set on this machine, and why.
cannot() { [ -n "$plain" ] || [ "$act" = ignore ] || printf '  -  %s\n' "$1"; }

# What a person has to do or to know.
advice() { [ -n "$plain" ] || [ "$act" = ignore ] || printf '  !  %s\n' "$1"; }

# ---- commands ----

show_one() {
  local kind=$1 target=$2 now=$3 wanted=$4 why=$5
  if [ -n "$plain" ]; then
    printf '%s\t%s\t%s\t%s\t%s\n' "$step" "$kind" "$target" "$now" "$wanted"
  elif [ "$now" = "$wanted" ]; then
    printf '  =  %s is %s\n' "$(name_of "$target")" "$now"
  else
    printf '  >  %s: %s -> %s\n       %s\n' "$(name_of "$target")" "${now:-(empty)}" "${wanted:-(empty)}" "$why"
  fi
}

show_step() {
  act=show_one
  [ -n "$plain" ] || printf '%s: %s\n' "$step" "$about"
  plan
}

boot() { cat /proc/sys/kernel/random/boot_id; }

is_of_this_boot() { [ "$(head -n 1 "$state/$step")" = "$(boot)" ]; }

applied_steps() {
  local file
  for file in sysctl ports limits irq governor thp busy-poll huge-pages isolation; do
    [ ! -e "$state/$file" ] || echo "$file"
  done
}

apply_one() {
  local kind=$1 target=$2 now=$3 wanted=$4 told after
  if [ "$now" = "$wanted" ]; then
    printf '  =  %s is %s\n' "$(name_of "$target")" "$now"
    return
  fi
  printf '%s\t%s\t%s\t%s\n' "$kind" "$target" "$now" "$wanted" >> "$state/$step"
  if ! told=$(write_now "$kind" "$target" "$wanted"); then
    printf '  x  %s: %s stays, it cannot be written: %s\n' "$(name_of "$target")" "$now" "$told"
    sed -i '$d' "$state/$step"
    step_failed=1
    return
  fi
  after=$(read_now "$kind" "$target") || after='(nothing)'
  if [ "$after" != "$wanted" ]; then
    sed -i '$d' "$state/$step"
    printf '%s\t%s\t%s\t%s\n' "$kind" "$target" "$now" "$after" >> "$state/$step"
    printf '  >  %s: %s -> %s, for the kernel made that of %s\n' "$(name_of "$target")" "$now" "$after" "$wanted"
  else
    printf '  >  %s: %s -> %s\n' "$(name_of "$target")" "$now" "$after"
  fi
}

apply_step() {
  local step_failed=0
  printf '%s: %s\n' "$step" "$about"
  if [ -e "$state/$step" ]; then
    if is_of_this_boot; then
      echo "  applied already; what was before is kept as it is. To apply it anew, put it back first"
      status_step
      return
    fi
    rm "$state/$step" # of before a reboot, which has put everything back
  fi
  boot > "$state/$step"
  act=apply_one
  plan
  [ "$(wc -l < "$state/$step")" -gt 1 ] || rm "$state/$step" # nothing was changed
  return "$step_failed"
}

# What was applied, a line each. The separator is no white space for `read`, which would take two tabs for one, and what was
# empty before for nothing at all.
lines_of_state() {
  tail -n +2 "$state/$step" | tr '\t' '\037'
}

put_back_step() {
  local step_failed=0 kind target before after now told
  printf '%s\n' "$step"
  [ -e "$state/$step" ] || { echo "  is not applied"; return 0; }
  if ! is_of_this_boot; then
    echo "  was applied before a reboot, which has put it back"
    rm "$state/$step"
    return 0
  fi
  while IFS=$'\037' read -r kind target before after; do
    now=$(read_now "$kind" "$target") || now='(nothing)'
    if [ "$now" = "$before" ]; then
      printf '  =  %s is %s\n' "$(name_of "$target")" "${now:-(empty)}"
    elif told=$(write_now "$kind" "$target" "$before"); then
      [ "$now" = "$after" ] || printf '  !  %s was %s by now, and not %s as applied\n' "$(name_of "$target")" "$now" "$after"
      now=$(read_now "$kind" "$target") || now='(nothing)'
      if [ "$now" = "$before" ]; then
        printf '  <  %s: %s -> %s\n' "$(name_of "$target")" "$after" "${before:-(empty)}"
      else
        printf '  x  %s: it was %s, and the kernel makes %s of that\n' "$(name_of "$target")" "$before" "$now"
        step_failed=1
      fi
    else
      printf '  x  %s: cannot be written: %s\n' "$(name_of "$target")" "$told"
      step_failed=1
    fi
  done < <(lines_of_state | tac)
  # What could not be put back stays known.
  [ "$step_failed" = 1 ] || rm "$state/$step"
  return "$step_failed"
}

status_step() {
  local step_failed=0 kind target before after now
  [ -e "$state/$step" ] || { printf '%s is not applied\n' "$step"; return 0; }
  is_of_this_boot || { printf '%s was applied before a reboot, which has put it back\n' "$step"; return 0; }
  while IFS=$'\037' read -r kind target before after; do
    now=$(read_now "$kind" "$target") || now='(nothing)'
    if [ "$now" = "$after" ]; then
      printf '  =  %s: %s %s is %s, was %s\n' "$step" "$kind" "$(name_of "$target")" "$now" "${before:-(empty)}"
    else
      printf '  x  %s: %s %s is %s, was applied as %s, was %s before\n' "$step" "$kind" "$(name_of "$target")" "$now" "$after" "$before"
      step_failed=1
    fi
  done < <(lines_of_state)
  return "$step_failed"
}

# ---- what steps ask about the machine ----

# The kind of virtual machine, or nothing. A container is none: its kernel is the host's.
virtual() {
  local kind
  if command -v systemd-detect-virt > /dev/null && kind=$(systemd-detect-virt --vm 2> /dev/null) && [ "$kind" != none ]; then
    echo "$kind"
  elif [ -r /sys/hypervisor/type ]; then
    cat /sys/hypervisor/type
  elif grep -q '^flags.* hypervisor' /proc/cpuinfo; then
    echo "a virtual machine"
  fi
}

# systemd runs as the first process.
has_systemd() { [ -d /run/systemd/system ]; }

# Network cards: interfaces with a device behind them.
cards() {
  local path
  for path in /sys/class/net/*; do
    [ ! -e "$path/device" ] || basename "$path"
  done
}
