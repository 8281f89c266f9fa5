/** What of a request must be right before a shim sees it. */

import { Failure } from 'troupe/plugin';
import type { Mount } from 'troupe/proto/containerd/types/mount.ts';
import { identifierProblem } from '../lib/identifier/identifier.ts';

/** Far over what a root file system needs; an overlay has its layers in one option. */
const maxMounts = 128;

/**
 * The mounts of a root file system. Where they come from is the caller's right, who may use this socket and so is root; but a NUL would cut a string short in
 * the kernel, and a comma would make two options of one, so that what was recorded and what is mounted differ. Commas inside double quotes are part of an SELinux
 * context and stay.
 * @throws Failure InvalidArgument
 */
export function requireMounts(mounts: readonly Mount[]): readonly Mount[] {
  if (mounts.length > maxMounts)
    throw invalid(`${mounts.length} mounts for a root file system, more than ${maxMounts}`);
  for (const { type, source, target, options } of mounts) {
    for (const text of [type, source, target, ...options]) {
      if (text.includes('\0')) throw invalid('NUL in a mount of the root file system');
    }
    for (const option of options) {
      if (option.replace(/"[^"]*"/g, '').includes(',')) {
        throw invalid(`comma in mount option ${JSON.stringify(option.slice(0, 256))} of the root file system`);
      }
    }
  }
  return mounts;
}

/** An exec's name becomes a file's name in the bundle. @throws Failure InvalidArgument, with containerd's text */
export function requireExecId(execId: string): void {
  if (execId === '') throw invalid('exec id cannot be empty');
  const problem = identifierProblem(execId);
  if (problem !== undefined) throw invalid(`invalid exec id ${execId.slice(0, 256)}: ${problem}`);
}

/** A FIFO's path or a log URI, as the shim will read it. @throws Failure InvalidArgument */
export function requirePath(path: string): void {
  if (path.includes('\0') || path.length > 4096) throw invalid('stdio path with NUL or over 4096 characters');
}

function invalid(reason: string): Failure {
  return new Failure('InvalidArgument', `${reason}: invalid argument`);
}
