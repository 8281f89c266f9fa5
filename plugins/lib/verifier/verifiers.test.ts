import test from 'ava';
import { type Call, type CallOptions, Failure, type PluginContext } from 'troupe/plugin';
import { Verifiers } from './verifiers.ts';

type Answer = (options: CallOptions) => Promise<{ ok: boolean; reason: string }>;

const descriptor = {
  mediaType: 'application/vnd.oci.image.layer.v1.tar',
  digest: 'sha256:ab',
  size: 1n,
  annotations: {},
};
const yes: Answer = async () => ({ ok: true, reason: '' });

function verifiersOf(answers: Record<string, Answer>) {
  const asked: { name: string; timeoutMs: number | undefined; namespace: string | undefined }[] = [];
  const ctx = {
    providers: () => Object.keys(answers),
    call: (_definition: unknown, { name = '' } = {}) => ({
      verify(_request: unknown, options: CallOptions) {
        asked.push({ name, timeoutMs: options.timeoutMs, namespace: options.namespace });
        return answers[name]!(options);
      },
    }),
  } as unknown as Pick<PluginContext, 'call' | 'providers'>;
  const signal = new AbortController();
  const call = { namespace: 'n', trace: '', deadline: 0, signal: signal.signal } as Call;
  return { asked, signal, require: () => new Verifiers(ctx, 500).require(descriptor, call) };
}

test('nobody is asked where there is none, and all are where there are some, each with its time', async (t) => {
  await t.notThrowsAsync(verifiersOf({}).require());
  const { asked, require } = verifiersOf({ a: yes, b: yes });
  await t.notThrowsAsync(require());
  t.deepEqual(asked, [
    { name: 'a', timeoutMs: 500, namespace: 'n' },
    { name: 'b', timeoutMs: 500, namespace: 'n' },
  ]);
});

test('one no is a no, with its reason', async (t) => {
  const { require } = verifiersOf({ a: yes, b: async () => ({ ok: false, reason: 'unsigned' }) });
  const error = await t.throwsAsync(require(), {
    message: 'layer sha256:ab in namespace "n": verifier "b" refuses it: unsigned: failed precondition',
  });
  t.true(Failure.is(error, 'FailedPrecondition'));
});

test('no answer is a no as well; a client that goes away is not one', async (t) => {
  const late: Answer = async () => {
    throw new Failure('DeadlineExceeded', 'context deadline exceeded');
  };
  const error = await t.throwsAsync(verifiersOf({ a: yes, late }).require(), {
    message:
      'layer sha256:ab in namespace "n": verifier "late" does not answer: context deadline exceeded: unavailable',
  });
  t.true(Failure.is(error, 'Unavailable'));
  const left = verifiersOf({
    a: (options) =>
      new Promise((_, reject) =>
        options.signal!.addEventListener('abort', () => reject(new Failure('Canceled', 'context canceled'))),
      ),
  });
  const asking = left.require();
  left.signal.abort();
  t.true(Failure.is(await t.throwsAsync(asking), 'Canceled'));
});
