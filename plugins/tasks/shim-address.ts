/**
 * Where a shim listens: what its `start` prints, in all generations, and what its socket's path must be.
 *
 *   up to 1.7   unix:///run/containerd/s/HASH
 *   2.0 – 2.2   {"version":3,"address":"unix://…","protocol":"ttrpc"}
 *   2.3         containerd.runtime.bootstrap.v1.BootstrapResult
 */

import { createHash } from 'node:crypto';
import { isAbsolute, join } from 'node:path';
import { Failure } from 'troupe/plugin';
import { BootstrapResult } from 'troupe/proto/containerd/runtime/bootstrap/v1/bootstrap.ts';

export interface ShimAddress {
  /** Path of a unix socket. */
  readonly path: string;
  /** Of the task service: 2 or 3. */
  readonly version: 2 | 3;
}

const newestVersion = 3;

/** @throws Failure Unknown for what is no address, Unimplemented for versions, schemes and protocols that are not spoken here. */
export function parseStartOutput(output: Uint8Array): ShimAddress {
  const text = Buffer.from(output).toString();
  const parameters = fromBootstrap(output) ?? fromJson(text);
  if (parameters === undefined) return { path: socketPath(text.trim()), version: 2 };
  const { version, address, protocol } = parameters;
  if (version > newestVersion) {
    throw new Failure(
      'Unimplemented',
      `shim speaks version ${version} of the task service, ${newestVersion} is the newest known here: not implemented`,
    );
  }
  if (protocol !== '' && protocol !== 'ttrpc') {
    throw new Failure('Unimplemented', `shim protocol ${JSON.stringify(protocol.slice(0, 64))}: not implemented`);
  }
  return { path: socketPath(address), version: version === 3 ? 3 : 2 };
}

interface Parameters {
  version: number;
  address: string;
  protocol: string;
}

/** Field 1, a varint, comes first in every BootstrapResult; no address and no JSON begins with that byte (a backspace). */
function fromBootstrap(output: Uint8Array): Parameters | undefined {
  if (output[0] !== 0x08) return undefined;
  try {
    const { version, address, protocol } = BootstrapResult.decode(output);
    return version >= 2 ? { version, address, protocol } : undefined;
  } catch {
    return undefined;
  }
}

function fromJson(text: string): Parameters | undefined {
  if (!text.trimStart().startsWith('{')) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const { version, address, protocol } = value as Record<string, unknown>;
  if (typeof version !== 'number' || version < 2 || typeof address !== 'string') return undefined;
  return { version, address, protocol: typeof protocol === 'string' ? protocol : '' };
}

/** The socket's path in `unix:///path` or `/path`. */
export function socketPath(address: string): string {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//.exec(address);
  if (scheme !== null && scheme[1] !== 'unix') {
    throw new Failure('Unimplemented', `shim address of scheme ${scheme[1]}: not implemented`);
  }
  const path = scheme === null ? address : address.slice('unix://'.length);
  if (!isAbsolute(path) || path.includes('\0') || path.includes('\n') || Buffer.byteLength(path) > 107) {
    const shown = JSON.stringify(address.slice(0, 512));
    throw new Failure(
      'Unknown',
      address === '' ? 'shim printed no address: unknown' : `shim printed ${shown}, which is no address: unknown`,
    );
  }
  return path;
}

/** Where containerd's shims make their sockets. */
export const shimSocketDirectory = '/run/containerd/s';

/** The socket that a runc shim makes for a task: what to try when it died before its address was written down. `group` is the sandbox's or the task's own id. */
export function derivedSocketPath(grpcAddress: string, namespace: string, group: string): string {
  const hash = createHash('sha256')
    .update(join(grpcAddress, namespace, group))
    .digest('hex');
  return join(shimSocketDirectory, hash);
}
