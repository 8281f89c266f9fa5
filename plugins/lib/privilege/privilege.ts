/**
 * What this process may do beyond what the owner of its files may (capabilities(7)), read once.
 *
 * A refusal of the kernel is passed over where it was to be expected, and an error where it was not. Expected is decided by capability and not by the user
 * id: root in a container has lost some, and in a user namespace has them all but over that namespace only (user_namespaces(7)): there it may not make
 * devices, write trusted attributes, or give files to ids that are not mapped.
 */

import { readFileSync } from 'node:fs';

const CAP_CHOWN = 0;
const CAP_DAC_OVERRIDE = 1;
const CAP_SYS_ADMIN = 21;
const CAP_MKNOD = 27;
const CAP_SETFCAP = 31;

export interface Privileges {
  /** Read, write and search whatever the mode says; in a user namespace too, since what the process makes belongs to ids of that namespace. */
  readonly override: boolean;
  /** Give files to any user and group. */
  readonly chown: boolean;
  /** Make devices. */
  readonly device: boolean;
  /** Write `security.capability`. */
  readonly capability: boolean;
  /** Write `trusted.*` and the other attributes of `security.*`. */
  readonly trusted: boolean;
  /** Leave the marks of overlayfs: a device 0:0, and a trusted attribute. */
  readonly mark: boolean;
  /** Mount, as far as capabilities go: a sandbox may refuse it all the same. */
  readonly mount: boolean;
}

export const may: Privileges = privilegesOf(
  effectiveCapabilities(readText('/proc/self/status')),
  isInitialNamespace(readText('/proc/self/uid_map')),
);

export function privilegesOf(effective: bigint, initialNamespace: boolean): Privileges {
  const has = (capability: number): boolean => initialNamespace && (effective & (1n << BigInt(capability))) !== 0n;
  return {
    override: (effective & (1n << BigInt(CAP_DAC_OVERRIDE))) !== 0n,
    chown: has(CAP_CHOWN),
    device: has(CAP_MKNOD),
    capability: has(CAP_SETFCAP),
    trusted: has(CAP_SYS_ADMIN),
    mark: has(CAP_SYS_ADMIN) && has(CAP_MKNOD),
    mount: has(CAP_SYS_ADMIN),
  };
}

/** @param status text of /proc/PID/status (proc(5)) */
export function effectiveCapabilities(status: string | undefined): bigint {
  const mask = status === undefined ? undefined : /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  // No /proc: the user id is all that is known.
  return mask === undefined ? (process.geteuid?.() === 0 ? ~0n : 0n) : BigInt(`0x${mask}`);
}

/** @param map text of /proc/PID/uid_map; the machine's own namespace maps all ids to themselves. Undefined: a kernel without user namespaces. */
export function isInitialNamespace(map: string | undefined): boolean {
  if (map === undefined) return true;
  const [inside, outside, count] = map.trim().split(/\s+/).map(Number);
  return inside === 0 && outside === 0 && count === 0xffff_ffff;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return undefined;
  }
}
