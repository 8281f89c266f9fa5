/** Streams that outlast several reloads, opened one after the other while those go on, each judged at its end: complete, in order, nothing twice. */
import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type GrpcClient, typedClient } from '../../kernel/front/client.ts';
import {
  ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from '../../proto/gen/containerd/services/content/v1/content.ts';
import { EventsDefinition } from '../../proto/gen/containerd/services/events/v1/events.ts';
import { inFlight, kept, numbers } from './subjects.ts';

const mebibyte = 1 << 20;
const partPause = 40;
const parts = 24;
/** After so many there is nothing to learn from more. */
const enough = 20;

export interface StreamVerdicts {
  /** How many have ended well, by kind. */
  readonly whole: { [kind: string]: number };
  readonly broken: string[];
}

/** Digest and bytes of a blob, for downloads. */
export interface Blob {
  readonly digest: string;
  readonly size: number;
}

export class Streams {
  readonly #client: GrpcClient;
  readonly verdicts: StreamVerdicts = { whole: {}, broken: [] };
  readonly #abort = new AbortController();
  readonly #running: Promise<void>[] = [];
  /** The next number of each lane that publishes. */
  readonly #heard = new Array<number>(inFlight).fill(0);
  readonly #subscribed = Promise.withResolvers<void>();

  constructor(client: GrpcClient) {
    this.#client = client;
  }

  /** Resolves when the subscription hears. */
  async begin(blob: Blob): Promise<void> {
    this.#running.push(this.#repeat('upload', () => this.#upload()));
    this.#running.push(this.#repeat('download', () => this.#download(blob)));
    void this.#repeat('subscription', () => this.#subscribe());
    const events = typedClient(this.#client, EventsDefinition);
    for (
      let open = false;
      !open;
      open = await Promise.race([this.#subscribed.promise.then(() => true), sleep(20, false)])
    ) {
      await events.publish({ topic: '/bench/begin', event: { typeUrl: 'bench.Begin', value: new Uint8Array() } });
    }
  }

  /** @param published by each lane. Resolves when the streams that are open have ended, and the subscription has heard all. */
  async end(published: readonly number[]): Promise<void> {
    this.#abort.abort();
    await Promise.all(this.#running);
    const until = performance.now() + 10_000;
    const missing = () => published.some((count, lane) => this.#heard[lane]! < count);
    while (missing() && performance.now() < until) await sleep(20);
    for (const [lane, count] of published.entries()) {
      if (this.#heard[lane] !== count)
        this.verdicts.broken.push(`lane ${lane} has published ${count} events, and ${this.#heard[lane]} were heard`);
    }
    if (this.verdicts.broken.length === 0) this.#well('subscription');
  }

  async #repeat(kind: string, stream: () => Promise<void>): Promise<void> {
    while (!this.#abort.signal.aborted && this.verdicts.broken.length < enough) {
      try {
        await stream();
        this.#well(kind);
      } catch (error) {
        if (kind === 'subscription' && this.#abort.signal.aborted) return;
        this.verdicts.broken.push(`${kind}: ${(error as Error).message}`);
        // A subscription that has missed something has no continuation.
        if (kind === 'subscription') {
          this.#subscribed.reject(error);
          return;
        }
      }
    }
  }

  #well(kind: string): void {
    this.verdicts.whole[kind] = (this.verdicts.whole[kind] ?? 0) + 1;
  }

  /** 24 MiB in a second, committed by its digest; then it goes again. */
  async #upload(): Promise<void> {
    const content = typedClient(this.#client, ContentDefinition);
    const data = Array.from({ length: parts }, () => randomBytes(mebibyte));
    const hash = createHash('sha256');
    for (const part of data) hash.update(part);
    const expected = `sha256:${hash.digest('hex')}`;
    const ref = `upload-${expected.slice(7, 23)}`;
    const request = (fields: Partial<WriteContentRequest>) => WriteContentRequest.fromPartial({ ref, ...fields });
    async function* requests() {
      yield request({ action: WriteAction.STAT });
      for (const [index, part] of data.entries()) {
        yield request({ action: WriteAction.WRITE, offset: BigInt(index * mebibyte), data: part });
        await sleep(partPause);
      }
      yield request({
        action: WriteAction.COMMIT,
        offset: BigInt(parts * mebibyte),
        total: BigInt(parts * mebibyte),
        expected,
        labels: kept,
      });
    }
    let replies = 0;
    let digest = '';
    for await (const reply of content.write(requests())) {
      const offset = Math.min(replies, parts) * mebibyte;
      if (Number(reply.offset) !== offset)
        throw new Error(`reply ${replies} says offset ${reply.offset}, not ${offset}`);
      replies += 1;
      digest = reply.digest;
    }
    if (replies !== parts + 2) throw new Error(`${replies} replies to ${parts + 2} requests`);
    if (digest !== expected) throw new Error(`committed as ${digest}, not ${expected}`);
    await content.delete({ digest });
  }

  /** As slowly, so that the window of the stream is shut most of the time. */
  async #download({ digest, size }: Blob): Promise<void> {
    const content = typedClient(this.#client, ContentDefinition);
    const hash = createHash('sha256');
    let at = 0;
    let paused = 0;
    for await (const { offset, data } of content.read({ digest, offset: 0n, size: 0n })) {
      if (Number(offset) !== at) throw new Error(`bytes of offset ${offset} where those of ${at} follow`);
      hash.update(data);
      at += data.length;
      for (; paused < at; paused += mebibyte) await sleep(partPause);
    }
    if (at !== size) throw new Error(`${at} bytes of ${size}`);
    if (`sha256:${hash.digest('hex')}` !== digest) throw new Error('its digest is another');
  }

  async #subscribe(): Promise<void> {
    const events = typedClient(this.#client, EventsDefinition);
    for await (const { topic, event } of events.subscribe({ filters: ['topic~="^/bench/"'] })) {
      this.#subscribed.resolve();
      if (topic !== numbers) continue;
      const [lane, number] = Buffer.from(event!.value).toString().split(' ').map(Number) as [number, number];
      const next = this.#heard[lane]!;
      if (number !== next) this.verdicts.broken.push(`lane ${lane}: event ${number} where ${next} follows`);
      this.#heard[lane] = number + 1;
    }
    throw new Error('it has ended');
  }
}
