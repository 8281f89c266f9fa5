/** Input from outside with a limit to its size. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';

export async function readStdin(limit: number, stream: AsyncIterable<Uint8Array> = process.stdin): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > limit) throw new Error(`stdin holds more than ${limit} bytes, the limit`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Regular files only; a bundle's files are written by whoever makes the container. */
export function readFileBounded(path: string, limit: number): Uint8Array {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error(`${path} is not a regular file`);
    if (stat.size > limit) throw new Error(`${path} is ${stat.size} bytes, the limit is ${limit}`);
    const buffer = Buffer.alloc(stat.size);
    let length = 0;
    for (let n = -1; n !== 0 && length < buffer.length; length += n)
      n = readSync(fd, buffer, length, buffer.length - length, null);
    return buffer.subarray(0, length);
  } finally {
    closeSync(fd);
  }
}
