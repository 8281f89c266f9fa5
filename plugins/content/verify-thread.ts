/** A thread that reads one blob after another: what is wrong with it, or nothing. */
import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { setThreadPriority } from 'troupe/sys';

export interface VerifyTask {
  readonly path: string;
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
}

const niceness = 15;
const buffer = Buffer.allocUnsafeSlow(1 << 20);

setThreadPriority(niceness);

/** @returns what is wrong with it; empty when nothing is */
export default function verify({ path, digest, size }: VerifyTask): string {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' ? 'its file is missing' : `its file cannot be opened: ${code}`;
  }
  try {
    const status = fstatSync(fd);
    if (!status.isFile()) return 'its file is none';
    if (status.size !== size) return `its file has ${status.size} bytes, not ${size}`;
    const [algorithm, hex] = digest.split(':') as [string, string];
    const hash = createHash(algorithm);
    for (let read = readSync(fd, buffer); read > 0; read = readSync(fd, buffer)) hash.update(buffer.subarray(0, read));
    const found = hash.digest('hex');
    return found === hex ? '' : `its bytes have digest ${algorithm}:${found}`;
  } catch (error) {
    return `it cannot be read: ${(error as NodeJS.ErrnoException).code ?? (error as Error).message}`;
  } finally {
    closeSync(fd);
  }
}
