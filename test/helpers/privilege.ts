/**
 * Tests that need what not every user has. They run where it is there; where it is not they are skipped, with the reason in the title, and never pass.
 *
 *     rootTest('keeps owners', (t) => { … });                  // all of root's privileges, mounting among them
 *     rootTest.serial('…', …);
 *     const loopTest = needing('root', 'mount', 'loop');
 *     test.before(() => …)                                     // hooks run nevertheless: if (lacking('mount') === undefined) …
 *
 * What is needed is tried, not derived from the user id: sandboxes take mounting from root, and give it to users in namespaces of their own.
 */
import { accessSync, constants, mkdtempSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { MNT_DETACH, mount, umount2, unmountAll } from '../../kernel/sys/index.ts';

/**
 * `root`: owners of files, other users, devices, priorities: uid 0 with the capabilities of a machine's root, those of mounting aside.
 * `mount`: file systems can be mounted. `loop`: loop devices, and mkfs.ext4 to fill one. `cgroup`: control groups can be made. `program umoci`: installed.
 */
export type Need = Privilege | `program ${string}`;
type Privilege = 'root' | 'mount' | 'loop' | 'cgroup';

type Implementation = (t: ExecutionContext) => unknown;
type Declare = (title: string, implementation: Implementation) => void;

const reasons: Readonly<Record<Privilege, () => string | undefined>> = {
  root: whyNotRoot,
  mount: whyNoMount,
  loop: whyNoLoop,
  cgroup: () => (isAccessible('/sys/fs/cgroup') ? undefined : 'control groups that can be written to'),
};
const known = new Map<Need, string | undefined>();

/** What is missing of `needs`, in words that go after "needs"; undefined when nothing is. */
export function lacking(...needs: readonly Need[]): string | undefined {
  for (const need of needs) {
    if (!known.has(need)) known.set(need, reasonOf(need));
    const reason = known.get(need);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

function reasonOf(need: Need): string | undefined {
  if (!need.startsWith('program ')) return reasons[need as Privilege]();
  const name = need.slice('program '.length);
  return isInstalled(name) ? undefined : `${name}, which is not installed`;
}

export function needing(...needs: readonly Need[]): Declare & { readonly serial: Declare } {
  return unlessLacking(() => lacking(...needs));
}

/** The same for what is tried elsewhere. @param lack in words that go after "needs"; undefined when nothing is missing */
export function unlessLacking(lack: () => string | undefined): Declare & { readonly serial: Declare } {
  const declare: Declare = (title, implementation) => {
    const reason = lack();
    if (reason === undefined) test(title, implementation as never);
    else test.skip(`${title} (needs ${reason})`, implementation as never);
  };
  const serial: Declare = (title, implementation) => {
    const reason = lack();
    if (reason === undefined) test.serial(title, implementation as never);
    else test.serial.skip(`${title} (needs ${reason})`, implementation as never);
  };
  return Object.assign(declare, { serial });
}

export const rootTest = needing('root', 'mount');

/**
 * What goes in front of a command that is to run without privilege: nothing for who has none; for root setpriv(1), which leaves it the user id and no
 * capability, so that it can still read a checkout that only root may.
 */
export const withoutPrivilege: readonly string[] =
  process.geteuid?.() === 0 ? ['setpriv', '--bounding-set=-all', '--inh-caps=-all', '--'] : [];

/**
 * A directory on a memory file system of its own for the tests of one file, removed after them. Where nothing can be mounted, on one that is there: what a
 * test says about owners, devices and sizes of the file system needs `rootTest` as well.
 *
 * @param options of tmpfs(5), such as `size=16m`
 */
export function memoryDirectory(name: string, options: string): string {
  const mounted = lacking('mount') === undefined;
  const base = !mounted && isAccessible('/dev/shm') ? '/dev/shm' : tmpdir();
  const path = mkdtempSync(join(base, `${name}-`));
  if (mounted) mount('tmpfs', path, 'tmpfs', 0, `mode=700,${options}`);
  // Not a hook of the tests: those do not run in a file whose tests are all skipped.
  process.once('exit', () => {
    if (mounted) unmountAll(path, MNT_DETACH);
    rmSync(path, { recursive: true, force: true });
  });
  return path;
}

/** CAP_CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID, SYS_NICE and MKNOD (capabilities(7)): what tests of owners, devices, users and priorities use. */
const capabilities = [0n, 1n, 3n, 6n, 7n, 23n, 27n].reduce((mask, bit) => mask | (1n << bit), 0n);

function whyNotRoot(): string | undefined {
  if (process.geteuid?.() !== 0) return 'root';
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1];
  if (effective !== undefined && (BigInt(`0x${effective}`) & capabilities) !== capabilities)
    return "all of root's capabilities";
  return /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'latin1'))
    ? undefined
    : 'root outside of a user namespace';
}

function whyNoMount(): string | undefined {
  if (process.geteuid?.() !== 0) return 'root, to mount';
  const path = mkdtempSync(join(tmpdir(), 'troupe-may-mount-'));
  try {
    mount('tmpfs', path, 'tmpfs', 0, 'size=64k');
    umount2(path);
    return undefined;
  } catch (error) {
    return `mounts to be allowed: ${(error as NodeJS.ErrnoException).code}`;
  } finally {
    rmdirSync(path);
  }
}

function whyNoLoop(): string | undefined {
  if (!isAccessible('/dev/loop-control')) return 'loop devices';
  return isInstalled('mkfs.ext4') ? undefined : 'mkfs.ext4 (Debian: e2fsprogs)';
}

function isInstalled(program: string): boolean {
  const path = (process.env.PATH ?? '').split(':').concat('/usr/sbin', '/sbin');
  return path.some((dir) => isAccessible(join(dir, program), constants.X_OK));
}

function isAccessible(path: string, mode: number = constants.R_OK | constants.W_OK): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}
