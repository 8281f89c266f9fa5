import test from 'ava';
import { TaskExit } from 'troupe/proto/containerd/events/task.ts';
import { StateResponse } from 'troupe/proto/containerd/task/v2/task.ts';
import { Status } from 'troupe/proto/containerd/v1/types/task.ts';
import { ExitDelivery } from './exit-delivery.ts';
import { ExitLedger } from './exits.ts';
import { makeRig } from './rig.ts';
import type { Task } from './task.ts';

const exit = (pid: number, id = 'web', exitStatus = 0) => ({
  namespace: 'default',
  event: TaskExit.fromPartial({ containerId: 'web', id, pid, exitStatus }),
});

test('an exit is published once, whoever comes first', async (t) => {
  const ledger = new ExitLedger();
  const published: number[] = [];
  const publish = async (_: string, event: TaskExit): Promise<void> => void published.push(event.pid);
  await Promise.all([ledger.publishOnce(exit(7), publish), ledger.publishOnce(exit(7), publish)]);
  t.true(ledger.note(exit(8)));
  t.false(ledger.note(exit(8)));
  await ledger.publishOnce(exit(8), publish);
  await ledger.publishOnce(exit(7, 'e1'), publish);
  t.deepEqual(published, [7, 7]);
});

test('an exit that could not be published is published at the next occasion', async (t) => {
  const ledger = new ExitLedger();
  await t.throwsAsync(ledger.publishOnce(exit(7), async () => Promise.reject(new Error('down'))));
  let published = 0;
  await ledger.publishOnce(exit(7), async () => void published++);
  t.is(published, 1);
});

test('a new container of the same name begins with nothing', (t) => {
  const ledger = new ExitLedger();
  ledger.note(exit(7));
  ledger.begin('default', 'web');
  t.false(ledger.has('default', exit(7).event));
  t.true(ledger.note(exit(7)));
});

test('the newest exit of a process is found, and moves to the next generation', (t) => {
  const ledger = new ExitLedger();
  ledger.note(exit(7, 'web', 1));
  ledger.note(exit(8, 'web', 2));
  ledger.note(exit(9, 'e1', 3));
  const next = new ExitLedger();
  next.import(structuredClone(ledger.export()));
  t.is(next.find('default', 'web', '')?.exitStatus, 2);
  t.is(next.find('default', 'web', 'e1')?.exitStatus, 3);
  t.is(next.find('other', 'web', ''), undefined);
});

test('a flood of exits does not grow it without end', (t) => {
  const ledger = new ExitLedger();
  for (let pid = 2; pid < 20_000; pid++) ledger.note(exit(pid));
  t.true(ledger.export().length <= 8192);
  t.true(ledger.has('default', exit(19_999).event));
});

for (const [what, seconds] of [
  ['1970', 0n],
  ['before that', -(10n ** 12n)],
  ['9999', 253_402_300_799n],
  ['no year', 2n ** 63n - 1n],
] as const)
  test(`an exit of ${what} is published when its task goes, with the time that its shim gave`, async (t) => {
    const rig = await makeRig(t);
    const exits = new ExitDelivery(rig.host);
    const exitedAt = { seconds, nanos: 1 };
    const task = { namespace: 'default', id: 'web' } as Task;
    exits.expect(task, StateResponse.fromPartial({ status: Status.STOPPED, pid: 7, exitStatus: 3, exitedAt }));
    await exits.publishOverdue(task);
    const { exit: published, from } = await rig.event(({ topic }) => topic === '/tasks/exit');
    t.like(published, { containerId: 'web', id: 'web', pid: 7, exitStatus: 3, exitedAt });
    t.is(from, 'daemon');
    t.is(rig.events.length, 1);
  });
