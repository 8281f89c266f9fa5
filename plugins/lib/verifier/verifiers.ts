/**
 * Asks every verifier of the daemon whether content may be used. What it keeps out is decided by digest, before a byte of it is unpacked. A verifier that does
 * not answer keeps content out as well: one that could be silenced would be none.
 */
import { type Call, Failure, type PluginContext } from 'troupe/plugin';
import type { Descriptor } from 'troupe/proto/containerd/types/descriptor.ts';
import { VerifierDefinition } from 'troupe/proto/troupe/verifier/v1/verifier.ts';

/** What is asked about. */
export interface Subject {
  /** For messages: `layer`, `image NAME` */
  readonly what: string;
  /** Of the image; empty where it is not known. */
  readonly name: string;
}

export class Verifiers {
  readonly #ctx: Pick<PluginContext, 'call' | 'providers'>;
  readonly #timeoutMs: number;

  /** @param timeoutMs that each of them has for an answer */
  constructor(ctx: Pick<PluginContext, 'call' | 'providers'>, timeoutMs: number) {
    this.#ctx = ctx;
    this.#timeoutMs = timeoutMs;
  }

  /** @throws Failure FailedPrecondition with the reason of the first that says no, Unavailable naming the first that does not answer */
  async require(descriptor: Descriptor, call: Call, subject: Subject = { what: 'layer', name: '' }): Promise<void> {
    const names = this.#ctx.providers(VerifierDefinition);
    if (names.length === 0) return;
    await Promise.all(names.map((name) => this.#ask(name, descriptor, call, subject)));
  }

  async #ask(verifier: string, descriptor: Descriptor, call: Call, { what: kind, name }: Subject): Promise<void> {
    const { namespace, signal, trace } = call;
    const what = `${kind} ${descriptor.digest} in namespace "${namespace}": verifier "${verifier}"`;
    // The call's own deadline is none where a layer takes its time.
    const options = { namespace, signal, trace, timeoutMs: this.#timeoutMs };
    let answer: { ok: boolean; reason: string };
    try {
      answer = await this.#ctx.call(VerifierDefinition, { name: verifier }).verify({ name, descriptor }, options);
    } catch (error) {
      if (signal.aborted) throw error;
      throw new Failure('Unavailable', `${what} does not answer: ${Failure.from(error).message}: unavailable`, {
        cause: error,
      });
    }
    if (answer.ok) return;
    throw new Failure(
      'FailedPrecondition',
      `${what} refuses it: ${answer.reason || 'no reason given'}: failed precondition`,
    );
  }
}
