/** Streams of Content.Write and looks at what is on its way: what the suite of content is made of, where it writes. */
import type { ExecutionContext } from 'ava';
import type { CallOptions } from 'troupe/plugin';
import { WriteContentRequest, type WriteContentResponse } from 'troupe/proto/containerd/services/content/v1/content.ts';
import type { ContentSubject } from './content.ts';
import { refused } from './refused.ts';
import { within } from './subject.ts';

export type Request = Parameters<typeof WriteContentRequest.fromPartial>[0];

/** A stream of Write whose requests are sent one by one, each with its answer. */
export class Stream {
  readonly #queue: WriteContentRequest[] = [];
  #ended = false;
  readonly #responses: AsyncIterator<WriteContentResponse>;
  readonly #controller = new AbortController();
  #wake = Promise.withResolvers<void>();

  constructor(subject: ContentSubject, options: CallOptions = {}) {
    const stream = subject.client.write(
      this.#requests(),
      within(subject, { signal: this.#controller.signal, ...options }),
    );
    this.#responses = stream[Symbol.asyncIterator]();
  }

  async send(request: Request): Promise<WriteContentResponse> {
    this.#queue.push(WriteContentRequest.fromPartial(request));
    this.#wake.resolve();
    const next = await this.#responses.next();
    if (next.done) throw new Error('the stream has ended');
    return next.value;
  }

  /** Says that nothing more comes, and waits for the end. */
  async end(): Promise<void> {
    this.#ended = true;
    this.#wake.resolve();
    while (!(await this.#responses.next()).done);
  }

  /** As a client that vanishes. */
  async vanish(): Promise<void> {
    const left = this.#responses.next().catch(() => {});
    this.#controller.abort();
    await left;
  }

  async *#requests(): AsyncGenerator<WriteContentRequest> {
    for (;;) {
      const request = this.#queue.shift();
      if (request !== undefined) yield request;
      else if (this.#ended) return;
      else {
        this.#wake = Promise.withResolvers();
        await this.#wake.promise;
      }
    }
  }
}

export async function once(
  subject: ContentSubject,
  request: Request,
  options: CallOptions = {},
): Promise<WriteContentResponse> {
  const stream = new Stream(subject, options);
  const response = await stream.send(request);
  await stream.end();
  return response;
}

export type Suite = (title: string, run: (t: ExecutionContext, subject: ContentSubject) => Promise<void>) => void;

export const status = async (subject: ContentSubject, ref: string, options: CallOptions = {}) =>
  (await subject.client.status({ ref }, within(subject, options))).status!;

export const refs = async (subject: ContentSubject, ...filters: string[]) =>
  (await subject.client.listStatuses({ filters }, within(subject))).statuses.map(({ ref }) => ref);

export const absent = (t: ExecutionContext, subject: ContentSubject, ref: string) =>
  refused(
    t,
    () => status(subject, ref),
    'NotFound',
    `could not get status for ref "${ref}": reference ${ref}: not found`,
  );
