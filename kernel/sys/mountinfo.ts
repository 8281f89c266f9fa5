/** /proc/self/mountinfo, proc_pid_mountinfo(5). */
import { readFileSync } from 'node:fs';

export interface MountInfo {
  readonly id: number;
  /** Id of the mount that this one lies on. */
  readonly parent: number;
  /** As in st_dev: "major:minor". */
  readonly device: string;
  /** The directory of the file system that is mounted (not '/' for a bind mount of a part). */
  readonly root: string;
  /** Where it is mounted, seen from this process's root; "//deleted" at its end when that name is gone. */
  readonly mountPoint: string;
  /** The same as bytes: a path of a foreign image need not be UTF-8. */
  readonly mountPointBytes: Buffer;
  /** Of the mount: ro, nosuid, relatime … */
  readonly options: readonly string[];
  /** Peer group when shared. */
  readonly shared: number | undefined;
  /** Peer group it receives from when it is a slave. */
  readonly master: number | undefined;
  readonly unbindable: boolean;
  readonly fstype: string;
  readonly source: string;
  /** Of the file system, with its data: rw, lowerdir=… */
  readonly superOptions: readonly string[];
}

/**
 * All mounts of this process's mount namespace, oldest first. The kernel hands the table out in pages, between which others may mount and
 * unmount: a mount that stays is never missed (Linux 5.8 keeps a cursor), one that comes or goes meanwhile may be either.
 */
export function mountinfo(): MountInfo[] {
  return parseMountinfo(readFileSync('/proc/self/mountinfo'));
}

/** The table as the kernel writes it. Lines that do not have the form are left out. */
export function parseMountinfo(text: Uint8Array): MountInfo[] {
  const mounts: MountInfo[] = [];
  // latin1 keeps every byte; only the few fields that are shown are made UTF-8.
  for (const line of Buffer.from(text.buffer, text.byteOffset, text.byteLength).toString('latin1').split('\n')) {
    const mount = parseLine(line);
    if (mount !== undefined) mounts.push(mount);
  }
  return mounts;
}

function parseLine(line: string): MountInfo | undefined {
  const fields = line.split(' ');
  // The optional fields end at a lone "-", searched from where they may begin: no field before can be one.
  const dash = fields.indexOf('-', 6);
  if (dash < 0 || fields.length < dash + 4) return undefined;
  let shared: number | undefined;
  let master: number | undefined;
  let unbindable = false;
  for (let i = 6; i < dash; i++) {
    const [tag, value] = fields[i]!.split(':');
    if (tag === 'shared') shared = Number(value);
    else if (tag === 'master') master = Number(value);
    else if (tag === 'unbindable') unbindable = true;
  }
  const mountPointBytes = bytes(fields[4]!);
  return {
    id: Number(fields[0]),
    parent: Number(fields[1]),
    device: fields[2]!,
    root: bytes(fields[3]!).toString(),
    mountPoint: mountPointBytes.toString(),
    mountPointBytes,
    options: fields[5]!.split(','),
    shared,
    master,
    unbindable,
    fstype: bytes(fields[dash + 1]!).toString(),
    // A source may be empty, and then the fields close up to two spaces.
    source: bytes(fields[dash + 2]!).toString(),
    superOptions: bytes(fields.slice(dash + 3).join(' '))
      .toString()
      .split(','),
  };
}

/** Undoes the kernel's \040 (space), \011 (tab), \012 (newline), \134 (backslash), \043 (#). */
function bytes(field: string): Buffer {
  const plain = field.includes('\\')
    ? field.replace(/\\([0-3][0-7][0-7])/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)))
    : field;
  return Buffer.from(plain, 'latin1');
}
