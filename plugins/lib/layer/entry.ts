/** What an entry of an archive asks of the file system. */

import type { TarHeader, TarTime } from '../tar/format.ts';
import type { Attributes } from './attributes.ts';
import { quote } from './name.ts';

/** Ids that Linux has; the last one means "leave as it is" to chown. */
const HIGHEST_ID = 2 ** 32 - 2;
/** What the kernel packs in 32 bits. */
const HIGHEST_MAJOR = 0xfff;
const HIGHEST_MINOR = 0xf_ffff;

const SECOND = 1_000_000_000n;
/** Times that a file system may not hold are set to 0, as containerd does: before 1970, or beyond 64 bits of nanoseconds. */
const LATEST = 2n ** 63n - 1n;

function boundedNs(time: TarTime): bigint {
  if (time.seconds < 0) return 0n;
  const ns = BigInt(time.seconds) * SECOND + BigInt(time.nanoseconds);
  return ns > LATEST ? 0n : ns;
}

/** Why the entry cannot be: what no file system can hold, or what would act on ours instead of being content. */
export function entryProblem(header: TarHeader): string | undefined {
  const { uid, gid, mode, devMajor, devMinor, type } = header;
  if (uid < 0 || uid > HIGHEST_ID) return `uid ${uid} is out of range`;
  if (gid < 0 || gid > HIGHEST_ID) return `gid ${gid} is out of range`;
  if (mode < 0) return `mode ${mode} is out of range`;
  if (type === 'char' || type === 'block') {
    const fits = devMajor >= 0 && devMajor <= HIGHEST_MAJOR && devMinor >= 0 && devMinor <= HIGHEST_MINOR;
    if (!fits) return `device ${devMajor}:${devMinor} is out of range`;
    // As content it would delete on one snapshotter and be a device on another.
    if (type === 'char' && devMajor === 0 && devMinor === 0) return 'character device 0:0 is a whiteout of overlayfs';
  }
  for (const key of header.xattrs.keys()) {
    if (key.startsWith('trusted.')) return `extended attribute ${quote(key)} is refused`;
  }
  return undefined;
}

export function wantedAttributes(header: TarHeader): Attributes {
  const mtimeNs = boundedNs(header.mtime);
  const atimeNs = header.atime === undefined ? mtimeNs : boundedNs(header.atime);
  return {
    uid: header.uid,
    gid: header.gid,
    mode: header.mode & 0o7777,
    xattrs: header.xattrs,
    // An archive's access time may be older than its modification time (relatime); containerd takes the later.
    atimeNs: later(atimeNs, mtimeNs),
    mtimeNs,
  };
}

function later(a: bigint, b: bigint): bigint {
  if (a > b) return a;
  return b;
}
