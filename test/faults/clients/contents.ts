/** Writes blobs piece by piece; goes on with what an earlier life of the daemon left half; aborts some, deletes some. */
import { WriteAction, type WriteContentRequest } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { sha256 } from '../../helpers/image.ts';
import { bytesOf } from '../random.ts';
import { rooted, type Turn } from '../turn.ts';

const namePattern = /^(blob-.+)~(\d+)$/;

export async function contents(turn: Turn): Promise<void> {
  const { random } = turn;
  if (turn.name.endsWith('-0')) await resume(turn);
  // Few bytes would be two clients' same content.
  const size = random.between(16, random.chance(0.3) ? 1_500_000 : 20_000);
  const ref = `${turn.unique('blob')}~${size}`;
  const fate = random.next();
  if (fate < 0.1) {
    await write(turn, ref, Math.floor(size / 2));
    await turn.ask('content.abort', [{ object: turn.object('ingest', ref), state: null }], () =>
      turn.content.abort({ ref }),
    );
  } else if (fate < 0.2) {
    await write(turn, ref, Math.floor(size / 2));
  } else {
    const digest = await write(turn, ref, size);
    if (random.chance(0.4))
      await turn.ask('content.delete', [{ object: turn.object('content', digest), state: null }], () =>
        turn.content.delete({ digest }),
      );
  }
}

/** Every ingest that an earlier epoch left. What it holds must be what was sent: the daemon compares the digest at commit. */
async function resume(turn: Turn): Promise<void> {
  const { statuses } = await turn.call('content.listStatuses', () => turn.content.listStatuses({ filters: [] }));
  for (const { ref } of statuses) {
    const match = namePattern.exec(ref);
    const epoch = Number(/^blob-(\d+)-/.exec(ref)?.[1] ?? Number.POSITIVE_INFINITY);
    if (match !== null && epoch < turn.epoch) await write(turn, ref, Number(match[2]));
  }
}

/**
 * Sends the content that `ref` stands for up to `end`, from wherever the daemon is, and commits when that is all of it.
 * @returns its digest
 */
export async function write(
  turn: Turn,
  ref: string,
  end: number,
  options: { labels?: Record<string, string>; lease?: string } = {},
): Promise<string> {
  const total = Number(namePattern.exec(ref)![2]);
  const bytes = bytesOf(ref, total);
  const digest = sha256(bytes);
  const ingest = turn.object('ingest', ref);
  const requests = new Channel<Partial<WriteContentRequest>>();
  const labels = options.labels ?? rooted;
  const replies = turn.content
    .write(requests, { ...(options.lease !== undefined && { lease: options.lease }) })
    [Symbol.asyncIterator]();
  const send = async (request: Partial<WriteContentRequest>): Promise<number> => {
    requests.push({ ref, total: BigInt(total), expected: digest, ...request });
    const { value, done } = await replies.next();
    if (done) throw new Error('content.write ended without an answer');
    return Number(value.offset);
  };
  try {
    let offset = 0;
    offset = await turn.ask('content.write', [{ object: ingest, state: { min: 0, max: total } }], () =>
      send({ action: WriteAction.STAT }),
    );
    while (offset < end) {
      const piece = bytes.subarray(offset, Math.min(end, offset + turn.random.between(1, 300_000)));
      const at = offset;
      offset = await turn.ask('content.write', [{ object: ingest, state: { min: at, max: at + piece.length } }], () =>
        send({ action: WriteAction.WRITE, offset: BigInt(at), data: piece }),
      );
    }
    if (end === total) {
      await turn.ask(
        'content.commit',
        [
          { object: ingest, state: null },
          { object: turn.object('content', digest), state: { size: total } },
        ],
        () => send({ action: WriteAction.COMMIT, offset: BigInt(total), labels }),
      );
    }
  } finally {
    requests.close();
    await replies.return?.();
  }
  return digest;
}

/** Requests, one at a time, each when its client has heard of the one before. */
class Channel<T> implements AsyncIterable<T> {
  readonly #waiting: T[] = [];
  #wake: () => void = () => {};
  #closed = false;

  push(item: T): void {
    this.#waiting.push(item);
    this.#wake();
  }

  close(): void {
    this.#closed = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      for (let item = this.#waiting.shift(); item !== undefined; item = this.#waiting.shift()) yield item;
      if (this.#closed) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
