/** 7. Shims, bundles, runc's states and cgroups are those of existing tasks; the daemon has no zombie, and no runc of ours is left. */
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { listDirectory } from './blobs.ts';
import { type Breach, Ledger } from './breach.ts';
import { bundlePath } from './mounts.ts';
import type { Picture } from './subject.ts';

export interface Process {
  readonly pid: number;
  readonly parent: number;
  /** R, S, D, Z … */
  readonly state: string;
  /** Ticks since boot. */
  readonly started: string;
  readonly argv: readonly string[];
}

const runcStates = '/run/containerd/runc';

export function checkProcesses({
  address,
  pid,
  root,
  state,
  namespaces,
  listing,
}: Pick<Picture, 'address' | 'pid' | 'root' | 'state' | 'namespaces' | 'listing'>): Breach[] {
  const ledger = new Ledger(7);
  const tasks = new Map(listing.tasks.map((task) => [`${task.ns}/${task.id}`, task]));
  const all = processes();
  const shims = new Map<string, number>();
  for (const { pid: each, parent, state: letter, argv } of all) {
    if (parent === pid && letter === 'Z') ledger.unsettled(`pid ${each}`, 'is a zombie child of the daemon');
    const program = argv[0]?.split('/').at(-1) ?? '';
    if (/shim/.test(program) && argv.includes(address)) {
      const name = `${argument(argv, '-namespace')}/${argument(argv, '-id')}`;
      if (!tasks.has(name)) ledger.unsettled(`pid ${each}`, `is a shim of ${name}, which is no task`);
      if (shims.has(name)) ledger.unsettled(`pid ${each}`, `is a second shim of ${name} beside pid ${shims.get(name)}`);
      shims.set(name, each);
    } else if (program === 'runc' && argv.some((text) => text.startsWith(`${state}/`))) {
      ledger.unsettled(`pid ${each}`, `is a runc at work: ${argv.join(' ')}`);
    }
  }
  const byPid = new Map(all.map((each) => [each.pid, each]));
  for (const [name, task] of tasks) {
    if (!shims.has(name)) ledger.unsettled(`task/${name}`, 'has no shim');
    if (task.status === 'running' && (byPid.get(task.pid)?.state ?? 'Z') === 'Z')
      ledger.unsettled(`task/${name}`, `is said to run as pid ${task.pid}, which is no process`);
  }
  // Bundles below state, the shims' work directories below root: one of each per task.
  for (const top of [bundlePath(state, '', ''), bundlePath(root, '', '')]) {
    for (const ns of listDirectory(top)) {
      for (const id of listDirectory(join(top, ns)))
        if (!tasks.has(`${ns}/${id}`)) ledger.unsettled(join(top, ns, id), 'is a directory of no task');
    }
  }
  for (const { ns, id } of listing.tasks)
    if (!listDirectory(bundlePath(state, ns, id)).includes('config.json'))
      ledger.unsettled(bundlePath(state, ns, id), 'is not a bundle, and its task is there');
  checkNamespaces({ namespaces, listing }, ledger);
  return ledger.breaches;
}

/** runc's states and the cgroups lie in places that daemons share: only this run's own namespaces are looked at. */
function checkNamespaces({ namespaces, listing }: Pick<Picture, 'namespaces' | 'listing'>, ledger: Ledger): void {
  const tasks = new Set(listing.tasks.map(({ ns, id }) => `${ns}/${id}`));
  for (const base of [runcStates, ...cgroupRoots()]) {
    for (const ns of namespaces) {
      for (const id of listDirectory(join(base, ns))) {
        const path = join(base, ns, id);
        if (statSync(path, { throwIfNoEntry: false })?.isDirectory() && !tasks.has(`${ns}/${id}`))
          ledger.unsettled(path, 'is left of a container that is no task');
      }
    }
  }
}

function cgroupRoots(): string[] {
  const base = '/sys/fs/cgroup';
  const names = listDirectory(base);
  if (names.includes('cgroup.controllers')) return [base];
  // Controllers that are mounted together have a link for each of them.
  return [...new Set(names.map((name) => realpathSync(join(base, name))))];
}

export function processes(): Process[] {
  return listDirectory('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      const found = processOf(Number(name));
      return found === undefined ? [] : [found];
    });
}

export function processOf(pid: number): Process | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses may hold anything: what follows the last one are fields 3 onwards, proc_pid_stat(5).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
    return { pid, state: fields[0]!, parent: Number(fields[1]), started: fields[19]!, argv };
  } catch {
    return undefined; // gone meanwhile
  }
}

function argument(argv: readonly string[], name: string): string {
  return argv[argv.indexOf(name) + 1] ?? '';
}
