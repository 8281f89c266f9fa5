/** What can be wrong with compressed bytes, in the same words whichever library met it: nobody should be able to tell from a failure which one it was. */

import { Failure } from 'troupe/plugin';

/** 128 MiB, zstd's own limit without --ultra: a frame that asks for more is refused before anything is allocated. */
export const ZSTD_WINDOW_LOG = 27;

/** Thrown by decoders, which do not know what they read. */
export class CorruptData extends Error {
  readonly kind: 'data' | 'memory';

  constructor(message: string, kind: 'data' | 'memory' = 'data') {
    super(message);
    this.kind = kind;
  }
}

/** @param subject what was read: `layer sha256:…`. Anything that is no complaint about data passes as it is. */
export function dataFailure(thrown: unknown, subject: string, compression: string): unknown {
  if (!(thrown instanceof CorruptData)) return thrown;
  const words = `${subject}: ${compression}: ${thrown.message}`;
  if (thrown.kind === 'memory')
    return new Failure('ResourceExhausted', `${words}: resource exhausted`, { cause: thrown });
  return new Failure('InvalidArgument', `${words}: invalid argument`, { cause: thrown });
}

/** Node's words for what zlib and zstd tell apart and ISA-L does not. */
const zlibKeeps = new Set([
  'unexpected end of file',
  'incorrect header check',
  'unknown compression method',
  'unknown header flags set',
  'header crc mismatch',
  'incorrect data check',
  'incorrect length check',
]);

/** An error of node:zlib's as a `CorruptData`. */
export function ofNode(error: unknown, compression: 'gzip' | 'zstd', some: boolean): CorruptData {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'ZSTD_error_frameParameter_windowTooLarge')
    return new CorruptData(`window is larger than ${1 << (ZSTD_WINDOW_LOG - 20)} MiB`);
  if (code === 'ZSTD_error_memory_allocation' || code === 'Z_MEM_ERROR')
    return new CorruptData('no memory for the window', 'memory');
  if (code === 'ZSTD_error_prefix_unknown' && some) return new CorruptData('trailing data');
  if (zlibKeeps.has(message)) return new CorruptData(message);
  return new CorruptData(compression === 'gzip' ? 'invalid deflate data' : 'invalid data');
}
