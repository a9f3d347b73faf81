"""The shell scripts that `launch.render` fills. Text between @ signs is replaced by quoted values."""

from __future__ import annotations

import re
from collections.abc import Mapping

SBATCH = """\
#!/bin/bash
@HEADER@
set -u
starts=${SLURM_RESTART_COUNT:-0}
@EXPORTS@code=0
srun --cpus-per-task=@CPUS@ --kill-on-bad-exit=0 --wait=@WAIT@ @COMMAND@ || code=$?
# @PREEMPTED@: preempted, saved; 43: another host was lost; from 128 on: a process died of a signal. All of them go on
# from the last checkpoint.
if { [ "$code" -eq @PREEMPTED@ ] || [ "$code" -eq 43 ] || [ "$code" -ge 128 ]; } && [ "$starts" -lt @RESTARTS@ ]; then
  echo "exit code $code: restart $((starts + 1)) of @RESTARTS@"
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""

TPU_LAUNCH = """\
#!/bin/bash
# Creates the TPU VMs, trains, restarts after preemptions, deletes what it created. With --keep it deletes nothing.
set -euo pipefail
cd "$(dirname "$0")"
keep=0
if [ "${1:-}" = --keep ]; then keep=1; fi
created=0
place=(@PLACE@)
queued() { gcloud compute tpus queued-resources "$@" "${place[@]}" --quiet; }
state() { queued list '--filter=name~/@NAME@$' '--format=value(state.state)' || echo UNKNOWN; }
pause() { sleep "${POLL_SECONDS:-30}" & wait $!; } # in the background: a signal is answered at once
trap 'if [ "$created" = 1 ] && [ "$keep" = 0 ]; then bash delete.sh; fi' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

make_active() {
  while :; do
    current=$(state)
    case "$current" in
      ACTIVE) return ;;
      FAILED)
        echo "@NAME@ has failed: see gcloud compute tpus queued-resources describe @NAME@" >&2
        exit 1
        ;;
      SUSPENDED) queued delete @NAME@ --force ;; # Spot: the machines were taken away
      "")
        created=1
        queued create @NAME@ @CREATE@
        pause
        ;;
      *)
        echo "@NAME@ is $current"
        pause
        ;;
    esac
  done
}

code=1
for ((restart = 0; restart <= @RESTARTS@; restart++)); do
  if [ "$restart" -gt 0 ]; then echo "restart $restart of @RESTARTS@"; fi
  code=1
  make_active
  if ! queued ssh @NAME@ --node=all --worker=all --batch-size=all --command="$(cat start.sh)"; then
    if [ "$(state)" = ACTIVE ]; then break; fi # the machines are there: start.sh itself has failed
    continue
  fi
  queued ssh @NAME@ --node=0 --worker=0 --command="$(cat follow.sh)" | tee "start-$restart.log" &
  wait $! || true
  told=$(sed -n 's/^gapt-exit-code \\([0-9]*\\)$/\\1/p' "start-$restart.log" | tail -n 1)
  code=${told:-1}
  case "$told" in # nothing: the machine went away before its process ended
    0) break ;;
    @FINAL@) if [ "$(state)" = ACTIVE ]; then break; fi ;; # otherwise it failed because machines were taken away
  esac
done
echo "exit code $code"
exit "$code"
"""

TPU_DELETE = """\
#!/bin/bash
# Asks all processes to save, then deletes the queued resource and its TPU VMs.
set -u
place=(@PLACE@)
gcloud compute tpus queued-resources ssh @NAME@ --node=all --worker=all --batch-size=all "${place[@]}" --quiet \\
  --command='sudo docker stop --time=@GRACE@ @NAME@' || true
gcloud compute tpus queued-resources delete @NAME@ --force "${place[@]}" --quiet
"""

TPU_START = """\
set -eu
@MOUNT@
@LOGIN@sudo docker rm --force @NAME@ >/dev/null 2>&1 || true
sudo docker pull --quiet @IMAGE@
sudo docker run --detach --name=@NAME@ --privileged --user=0 --net=host --shm-size=@SHM@ --stop-timeout=@GRACE@ \\
  --volume=@DIR@:@DIR@ @ENV@ @IMAGE@ @COMMAND@
"""

TPU_FOLLOW = """\
sudo docker logs --follow --tail=1000 @NAME@ 2>&1
echo "gapt-exit-code $(sudo docker wait @NAME@)"
"""

MOUNT_NFS = """\
if ! mountpoint -q @DIR@; then
  if ! command -v mount.nfs >/dev/null; then sudo apt-get update -q; sudo apt-get install -qy nfs-common; fi
  sudo mkdir -p @DIR@
  sudo mount -t nfs @PLACE@ @DIR@
fi
"""

# The installation is that of docs.cloud.google.com/storage/docs/cloud-storage-fuse/install. No caches of what is in the
# bucket: each host must see at once what another has written.
MOUNT_BUCKET = """\
if ! mountpoint -q @DIR@; then
  if ! command -v gcsfuse >/dev/null; then
    key=/usr/share/keyrings/cloud.google.asc
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get update -q
    sudo apt-get install -qy gcsfuse
  fi
  sudo mkdir -p @DIR@
  sudo gcsfuse -o allow_other --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 @PLACE@ @DIR@
fi
"""


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replaces each @NAME@ in one pass: a value that looks like a placeholder stays as it is."""
    names = "|".join(map(re.escape, values))
    return re.sub(f"@({names})@", lambda match: values[match[1]], template)
