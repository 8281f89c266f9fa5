import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import type { Call, PluginContext, Service } from 'troupe/plugin';
import { CommitRequest, type RecordsDefinition } from 'troupe/proto/troupe/records/v1/records.ts';
import type { RecordsConfig } from './house.ts';
import plugin from './index.ts';

const call = { signal: new AbortController().signal } as Call;

test('one generation after the other has the file, and an old one can have it back', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'troupe-records-plugin-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const config = {
    content_sharing_policy: 'shared',
    startup_delay: 1000,
    pause_threshold: 0.02,
    deletion_threshold: 0,
    mutation_threshold: 100,
    schedule_delay: 0,
    reserve: 0,
    no_sync: false,
  };
  const ctx = { root, config, log, busy: (_what: string, _limit: number, work: () => unknown) => work() };
  let generations = 0;
  const generation = async () => {
    generations += 1;
    const instance = await plugin.start({ ...ctx, generation: generations } as unknown as PluginContext<RecordsConfig>);
    const service = instance.serve['troupe.records.v1.Records'] as Service<typeof RecordsDefinition>;
    const commit = async (namespace: string, id = '') =>
      (await service.commit({ ...CommitRequest.create(), namespace, id: Buffer.from(id) }, call)).sequence;
    return { instance, commit };
  };
  const file = join(root, 'records.db');

  const first = await generation();
  t.false(existsSync(file), 'standing by it touches nothing');
  await t.throwsAsync(first.commit('early'), { message: /unavailable$/ });
  await first.instance.activate!(undefined);
  t.is(await first.commit('a', 'one'), 1n);

  const second = await generation();
  t.is(await first.commit('a', 'two'), 2n);
  const state = await first.instance.suspend!();
  t.true(existsSync(`${file}.open`), 'whoever finds it unhandled looks at it');
  await t.throwsAsync(first.commit('late'), { message: /unavailable$/ });
  await second.instance.activate!(structuredClone(state));
  t.is(await second.commit('b'), 3n);
  t.is(await second.commit('a', 'one'), 1n, 'asked again: read before it was handed over');
  t.is(await second.commit('a', 'two'), 2n, 'asked again: committed while it stood by');

  const third = await generation();
  await second.instance.stop!();
  await third.instance.activate!(undefined);
  t.is(await third.commit('c'), 4n, 'handed nothing, as after a crash, it opens the file for itself');
  await third.instance.stop!();

  await first.instance.activate!(undefined);
  t.is(await first.commit('d'), 5n);
  await first.instance.stop!();
  t.false(existsSync(`${file}-wal`));
});
