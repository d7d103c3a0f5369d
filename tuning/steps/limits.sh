# shellcheck shell=bash disable=SC2034
about="descriptors, a million for each process; locked memory where rings need it"

plan() {
  local unit=/run/systemd/system/ptth-edge.service.d/50-ptth-tuning.conf lines='[Service]\nLimitNOFILE=1048576' kernel
  least /proc/sys/fs/nr_open 1048576 "no limit of descriptors can be above it"
  least /proc/sys/fs/file-max 2097152 "open files of all processes together"
  kernel=$(uname -r | sed 's/^\([0-9]*\)\.\([0-9]*\).*/\1 \2/')
  if [ "${kernel% *}" -lt 5 ] || { [ "${kernel% *}" = 5 ] && [ "${kernel#* }" -lt 12 ]; }; then
    lines="$lines"'\nLimitMEMLOCK=infinity' # the rings count as locked memory there
  fi
  if has_systemd; then
    want drop-in "$unit" "$lines" "the edge raises its soft limit to the hard one, and systemd's default hard one is 524,288"
    advice "a running edge keeps its limit: systemctl restart ptth-edge, where it is less than that"
  else
    cannot "systemd does not run here, so no unit's limit can be set; this shell's hard limit is $(ulimit -Hn)"
    advice "set it where the edge is started: ulimit -Hn 1048576, or nofile in /etc/security/limits.conf, or --ulimit nofile= of a container"
  fi
}
