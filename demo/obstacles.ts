/** What of the demo this machine or user does not allow, with the reason and what would allow it. Looked for, not guessed: sandboxes differ. */
import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';

export interface Obstacle {
  readonly what: string;
  readonly allows: string;
}

const CAP_SYS_ADMIN = 21n;

/** Why a container cannot be run here; empty when one can. */
export function containerObstacles(): Obstacle[] {
  const found: Obstacle[] = [];
  if (process.geteuid?.() !== 0) {
    found.push({
      what: `this is user ${process.geteuid?.()}, and only root starts containers`,
      allows: 'run it as root',
    });
  } else if (!mayMount()) {
    found.push({ what: 'this root may not mount', allows: 'a sandbox that leaves it CAP_SYS_ADMIN' });
  } else if (!mayMakeCgroups()) {
    found.push({ what: '/sys/fs/cgroup cannot be written to', allows: 'a sandbox that mounts it read-write' });
  }
  for (const [command, debian] of [
    ['runc', 'runc'],
    ['containerd-shim-runc-v2', 'containerd'],
    ['mkfifo', 'coreutils'],
  ] as const) {
    if (!inPath(command))
      found.push({ what: `no ${command}`, allows: `apt-get install --no-install-recommends ${debian}` });
  }
  if (!isExecutable('/bin/busybox')) {
    found.push({ what: 'no static /bin/busybox', allows: 'apt-get install --no-install-recommends busybox-static' });
  }
  return found;
}

/** That it may be refused all the same (seccomp) is seen by the daemon, whose overlayfs then is not there. */
function mayMount(): boolean {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1];
  return mask === undefined || (BigInt(`0x${mask}`) & (1n << CAP_SYS_ADMIN)) !== 0n;
}

/** Tried: a read-only mount and a missing delegation refuse what permission bits allow. */
function mayMakeCgroups(): boolean {
  const base = '/sys/fs/cgroup';
  if (!existsSync(base)) return false;
  const unified = existsSync(join(base, 'cgroup.controllers'));
  // Version 1: each controller is a directory of its own. What runc needs first is the one for devices.
  const controllers = unified ? ['.'] : ['devices', ...readdirSync(base)];
  const within = controllers.map((name) => join(base, name)).find((path) => existsSync(join(path, 'cgroup.procs')));
  if (within === undefined) return false;
  const probe = join(within, `troupe-demo-${process.pid}`);
  try {
    mkdirSync(probe);
    rmdirSync(probe);
    return true;
  } catch {
    return false;
  }
}

function inPath(command: string): boolean {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .concat('/usr/sbin', '/sbin')
    .some((dir) => isExecutable(join(dir, command)));
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
