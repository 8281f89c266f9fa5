/** Reloads of one plugin whose streams go on: real workers. */
import test from 'ava';
import { type Fixture, plugin, useSupervisor } from './rig.ts';

/** Subscribes, uploads and downloads, each for longer than several reloads, and says how they ended. */
const streams: Fixture = {
  toml: 'api = 1\nid = "test.v1.streams"\nrequires = ["test.v1.content"]\n',
  code: plugin(`
    const content = ctx.call(ContentDefinition);
    const failed = (what) => (error) => ctx.log.info('broken', { what, error: String(error) });
    const upload = async (n) => {
      async function* parts() { for (let i = 0; i < 60; i++) { yield ContentDefinition.methods.write.requestType.fromPartial({ ref: 'r' + n, offset: BigInt(i), data: new Uint8Array(1000).fill(i) }); await new Promise((r) => setTimeout(r, 10)); } }
      const got = []; for await (const reply of content.write(parts())) got.push(Number(reply.offset));
      ctx.log.info('uploaded', { n, right: got.length === 60 && got.every((each, i) => each === i) });
    };
    const download = async (n) => {
      let next = 0; let right = true;
      for await (const { offset } of content.read({ digest: 'd', offset: 0n, size: 0n })) right &&= Number(offset) === next++;
      ctx.log.info('downloaded', { n, right: right && next === 60 });
    };
    const follow = async (n) => {
      let next = 0; let right = true;
      for await (const { info } of content.list({ filters: [] })) { right &&= info[0].digest === String(next++); if (next === 200) break; }
      ctx.log.info('followed', { n, right: right && next === 200 });
    };
    return { serve: {}, activate() { for (let n = 0; n < 5; n++) {
      upload(n).catch(failed('upload')); download(n).catch(failed('download')); follow(n).catch(failed('follow'));
    } } };`),
};
const content: Fixture = {
  toml: `api = 1\nid = "test.v1.content"
[serves."containerd.services.content.v1.Content"]
public = true
[serves."containerd.services.content.v1.Content".methods.Write]
unbounded = true
[serves."containerd.services.content.v1.Content".methods.Read]
unbounded = true
[serves."containerd.services.content.v1.Content".methods.List]
unbounded = true
on_reload = "migrate"
`,
  code: plugin(`
    const none = () => ({}); const pause = () => new Promise((resolve) => setTimeout(resolve, 10));
    return { serve: { [ContentDefinition.fullName]: {
      info: none, update: none, delete: none, status: none, listStatuses: none, abort: none,
      async *write(requests) { for await (const { offset } of requests) yield ContentDefinition.methods.write.responseType.fromPartial({ offset }); },
      async *read() { for (let i = 0; i < 60; i++) { yield { offset: BigInt(i), data: new Uint8Array(10_000) }; await pause(); } },
      async *list(_request, call) { for (let i = Number(call.resume || -1) + 1; ; i++) { call.cursor(String(i)); yield { info: [{ digest: String(i), size: 0n, labels: {} }] }; await pause(); } },
    } } };`),
};

test.serial(
  'B14 uploads, downloads and subscriptions live through several reloads, complete and in order',
  async (t) => {
    const { supervisor, until, count, lines } = useSupervisor(t, { content, streams });
    await supervisor.boot();
    const unit = supervisor.unit('test.v1.content');
    for (let reload = 0; reload < 4; reload++) {
      const { outcome, reason } = await unit.reload({ force: true });
      t.is(outcome, 'reloaded', reason);
    }
    await until(() => count('uploaded') + count('downloaded') + count('followed') + count('broken') === 15);
    t.deepEqual(
      lines.filter((line) => line.message === 'broken').map((line) => line.fields),
      [],
    );
    for (const how of ['uploaded', 'downloaded', 'followed']) t.is(count(how, { right: true }) >= 5, true, how);
    t.is(
      count('uploaded', { right: false }) + count('downloaded', { right: false }) + count('followed', { right: false }),
      0,
    );
  },
);

test.serial('B14 a generation with streams lives as long as they do, and no longer', async (t) => {
  const { supervisor, until, count } = useSupervisor(t, { content, streams });
  await supervisor.boot();
  const unit = supervisor.unit('test.v1.content');
  const { handle } = unit.serving!;
  await unit.reload({ force: true });
  t.false(handle.gone);
  t.is(unit.draining.size, 1);
  await handle.exited;
  t.is(count('uploaded') + count('downloaded') >= 10 || count('broken') > 0, true);
  await until(() => unit.draining.size === 0);
  t.is(count('broken'), 0);
});
