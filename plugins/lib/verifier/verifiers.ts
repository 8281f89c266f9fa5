/**
 * Asks every verifier of the daemon whether content may be used. What it keeps out is decided by digest, before a byte of it is unpacked. A verifier that does
 * not answer keeps content out as well: one that could be silenced would be none.
 */
import { type Call, Failure, type PluginContext } from 'troupe/plugin';
import type { Descriptor } from 'troupe/proto/containerd/types/descriptor.ts';
import { VerifierDefinition } from 'troupe/proto/troupe/verifier/v1/verifier.ts';

export class Verifiers {
  readonly #ctx: Pick<PluginContext, 'call' | 'providers'>;
  readonly #timeoutMs: number;

  /** @param timeoutMs that each of them has for an answer */
  constructor(ctx: Pick<PluginContext, 'call' | 'providers'>, timeoutMs: number) {
    this.#ctx = ctx;
    this.#timeoutMs = timeoutMs;
  }

  /** @throws Failure FailedPrecondition with the reason of the first that says no, Unavailable naming the first that does not answer */
  async require(descriptor: Descriptor, call: Call): Promise<void> {
    const names = this.#ctx.providers(VerifierDefinition);
    if (names.length === 0) return;
    await Promise.all(names.map((name) => this.#ask(name, descriptor, call)));
  }

  async #ask(name: string, descriptor: Descriptor, call: Call): Promise<void> {
    const { namespace, signal, trace } = call;
    const what = `layer ${descriptor.digest} in namespace "${namespace}": verifier "${name}"`;
    // The call's own deadline is none where a layer takes its time.
    const options = { namespace, signal, trace, timeoutMs: this.#timeoutMs };
    let answer: { ok: boolean; reason: string };
    try {
      answer = await this.#ctx.call(VerifierDefinition, { name }).verify({ name: '', descriptor }, options);
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
