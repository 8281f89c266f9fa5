/** Whether overlayfs works on a directory, found out by mounting one: modules, file systems, namespaces and privileges all have a say. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { skip } from 'troupe/plugin';
import { detach, isErrno, mountOn } from 'troupe/sys';

/**
 * Options that every mount on this machine needs.
 * @throws Skip with the reason when overlay cannot be used below `root`
 */
export function probeOverlay(root: string, configured: readonly string[]): string[] {
  const options = [...configured];
  // An index of inodes would make overlay refuse an upper directory whose lower ones have changed places, as every rebase does.
  if (!options.some((option) => option.startsWith('index=')) && existsSync('/sys/module/overlay/parameters/index')) {
    options.push('index=off');
  }
  // trusted.* is not for a user namespace to write (overlayfs.rst, "User xattr").
  if (inUserNamespace() && !options.includes('userxattr')) options.push('userxattr');
  tryMount(root, options);
  return options;
}

function tryMount(root: string, options: readonly string[]): void {
  mkdirSync(root, { recursive: true, mode: 0o700 });
  const scratch = mkdtempSync(join(root, 'probe-'));
  const [lower1, lower2, upper, work, merged] = ['lower1', 'lower2', 'upper', 'work', 'merged'].map((name) => {
    mkdirSync(join(scratch, name));
    return join(scratch, name);
  }) as [string, string, string, string, string];
  try {
    writeFileSync(join(lower1, 'file'), '');
    const directories = [`workdir=${work}`, `upperdir=${upper}`, `lowerdir=${lower2}:${lower1}`];
    try {
      mountOn(merged, { type: 'overlay', source: 'overlay', options: [...options, ...directories] });
    } catch (error) {
      throw skip(`overlayfs cannot be mounted on ${root}: ${reasonOf(error, options)}`);
    }
    try {
      unlinkSync(join(merged, 'file'));
      // Without file types in its directories (xfs with ftype=0) overlay cannot hide its own whiteouts.
      if (readdirSync(merged).length > 0) {
        throw skip(`${root} does not support d_type: an xfs there must be made with ftype=1`);
      }
    } finally {
      detach(merged);
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Its own words name the directories of the probe, which are gone when they are read. */
function reasonOf(error: unknown, options: readonly string[]): string {
  const words = (error as Error).message.replace(/, mount .*$/s, '');
  // EPERM is about who mounts; anything else about what is mounted.
  if (isErrno(error, 'EPERM')) return `${words}: mounting takes root and CAP_SYS_ADMIN`;
  return options.length === 0 ? words : `${words} (options ${options.join(',')})`;
}

/** The initial user namespace maps all ids to themselves. */
function inUserNamespace(): boolean {
  try {
    return !/^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'));
  } catch {
    return false;
  }
}
