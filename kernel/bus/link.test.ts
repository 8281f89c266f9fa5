import { once } from 'node:events';
import { MessageChannel } from 'node:worker_threads';
import test, { type ExecutionContext } from 'ava';
import { Failure } from '../sdk/failure.ts';
import { CalleeLink, type IncomingCall } from './callee.ts';
import { CallerLink, type CallSink } from './caller.ts';
import { Batch } from './codec.ts';
import { type CallMeta, frameKind, type Port, priority } from './frames.ts';
import { dispatchPage, streamWindow } from './link.ts';
import { Scheduler } from './scheduler.ts';

const meta: CallMeta = { from: 'test', namespace: 'ns', lease: '', deadline: 0, trace: '', cursor: '' };
const complete = { complete: true, single: true, priority: priority.interactive };

function pair(t: ExecutionContext, serve: (call: IncomingCall) => void) {
  const { port1, port2 } = new MessageChannel();
  const page = dispatchPage();
  const caller = new CallerLink('callee', port1 as unknown as Port, page, new Scheduler());
  const callee = new CalleeLink('caller', port2 as unknown as Port, page, new Scheduler(), serve);
  t.teardown(() => port1.close());
  return { caller, callee, ports: [port1, port2] };
}

/** Everything a call heard, and a promise of its end. */
function recorder() {
  const heard: string[] = [];
  const messages: Uint8Array[] = [];
  let settle = (_how: string) => {};
  const ended = new Promise<string>((resolve) => {
    settle = resolve;
  });
  const sink: CallSink = {
    message: (payload) => messages.push(payload),
    end: () => settle('end'),
    fail: (failure, died) => settle(`${died ? 'died' : 'fail'} ${failure.code} ${failure.message}`),
    undispatched: () => settle('undispatched'),
    moved: () => settle('moved'),
    cursor: (value) => heard.push(value),
    writable: () => heard.push('writable'),
  };
  return { sink, messages, heard, ended };
}

test('a call carries its header and payload there, and its reply back', async (t) => {
  const seen: IncomingCall[] = [];
  const { caller } = pair(t, (call) => {
    seen.push(call);
    call.reply(Uint8Array.of(...call.first!, 3));
  });
  const { sink, messages, ended } = recorder();
  caller.open('a.B/C', { ...meta, lease: 'l', deadline: 1e12, trace: 't' }, Uint8Array.of(1, 2), complete, sink);
  t.is(await ended, 'end');
  t.deepEqual(messages, [Uint8Array.of(1, 2, 3)]);
  t.is(seen[0]!.method, 'a.B/C');
  t.deepEqual(seen[0]!.meta, { ...meta, lease: 'l', deadline: 1e12, trace: 't' });
  t.is(caller.pending, 0);
});

test('calls that repeat a header are what they say, however many headers there are, and in each priority', async (t) => {
  const { caller } = pair(t, (call) =>
    call.reply(Buffer.from(JSON.stringify([call.method, call.meta, call.first?.length]))),
  );
  const calls: { method: string; with: CallMeta; at: (typeof priority)[keyof typeof priority]; size: number }[] = [];
  // More headers than are kept, over and over, and everything else different each time.
  for (let index = 0; index < 500; index++) {
    calls.push({
      method: `a.B/M${index % 7}`,
      with: {
        from: index % 11 === 0 ? 'other' : 'test',
        namespace: `ns${index % 3}`,
        lease: index % 5 === 0 ? `lease${index % 20}` : '',
        deadline: 1e12 + index,
        trace: index % 13 === 0 ? `trace${index}` : '',
        cursor: index % 17 === 0 ? `cursor${index}` : '',
      },
      at: index % 4 === 0 ? priority.bulk : index % 4 === 1 ? priority.control : priority.interactive,
      size: index % 9,
    });
  }
  const answers = await Promise.all(
    calls.map(async (call) => {
      const { sink, messages, ended } = recorder();
      caller.open(call.method, call.with, new Uint8Array(call.size), { ...complete, priority: call.at }, sink);
      t.is(await ended, 'end');
      return JSON.parse(Buffer.from(messages[0]!).toString());
    }),
  );
  t.deepEqual(
    answers,
    calls.map((call) => [call.method, call.with, call.size]),
  );
});

test('a header is sent once to a callee that keeps it, and whole each time to one that does not', async (t) => {
  const bytesOf = async (keeps: boolean) => {
    const { port1, port2 } = new MessageChannel();
    t.teardown(() => port1.close());
    // A callee of a build from before it could has a page of three numbers, or says nothing in the fourth.
    const page = keeps ? dispatchPage() : new SharedArrayBuffer(3 * 4);
    const caller = new CallerLink('callee', port1 as unknown as Port, page, new Scheduler());
    const callee = new CalleeLink('caller', port2 as unknown as Port, page, new Scheduler(), (call) => call.end());
    const sizes: number[] = [];
    port2.on('message', ({ b }: { b: Uint8Array }) => sizes.push(b.byteLength));
    for (let index = 0; index < 2; index++) {
      const { sink, ended } = recorder();
      caller.open('some.Service/Method', { ...meta, deadline: 1e12 + 0.5 }, undefined, complete, sink);
      t.is(await ended, 'end');
    }
    t.is(callee.running, 0);
    return sizes;
  };
  const [first, second] = await bytesOf(true);
  t.true(second! < first! / 2, `${first} and ${second} bytes`);
  const [whole, again] = await bytesOf(false);
  t.is(whole, again);
});

test('a call with a header that was never sent closes the link', async (t) => {
  const served: IncomingCall[] = [];
  const { port1, port2 } = new MessageChannel();
  new CalleeLink('caller', port2 as unknown as Port, dispatchPage(), new Scheduler(), (call) => served.push(call));
  const batch = new Batch();
  batch.add([frameKind.repeat, 1, 5, 0], undefined);
  const closed = once(port1, 'close');
  port1.postMessage({ p: priority.interactive, b: batch.take()! });
  await closed;
  t.deepEqual(served, []);
});

test('an empty message is not the same as none', async (t) => {
  const firsts: (Uint8Array | undefined)[] = [];
  const { caller } = pair(t, (call) => {
    firsts.push(call.first);
    call.end();
  });
  const one = recorder();
  caller.open('m', meta, new Uint8Array(), complete, one.sink);
  const two = recorder();
  caller.open('m', meta, undefined, { ...complete, complete: false }, two.sink);
  await Promise.all([one.ended, two.ended]);
  t.deepEqual(firsts, [new Uint8Array(), undefined]);
});

test('payloads of every size arrive as they were, in buffers of their own', async (t) => {
  const { caller } = pair(t, (call) => call.reply(call.first!));
  for (const size of [0, 1, 16_383, 16_384, 65_536, 65_537, 1 << 20, (1 << 20) + 7, 3 << 20]) {
    const sent = new Uint8Array(size).map((_, index) => (index * 31 + size) & 0xff);
    const { sink, messages, ended } = recorder();
    caller.open('m', meta, sent, complete, sink);
    t.is(await ended, 'end');
    t.true(Buffer.from(messages[0]!).equals(sent), `${size} bytes`);
    t.true(messages[0]!.buffer.byteLength <= size + 256, 'no neighbour travels along');
  }
});

test('a hundred large payloads at once do not wait for slab slots', async (t) => {
  const { caller } = pair(t, (call) => call.reply(call.first!.subarray(0, 4)));
  const calls = Array.from({ length: 100 }, (_, index) => {
    const each = recorder();
    caller.open('m', meta, new Uint8Array(100_000).fill(index), complete, each.sink);
    return each;
  });
  for (const [index, { ended, messages }] of calls.entries()) {
    await ended;
    t.is(messages[0]![0], index);
  }
});

test('B30 a failure keeps its class, text and details', async (t) => {
  const { caller } = pair(t, (call) =>
    call.fail(new Failure('NotFound', 'x: not found', { details: Uint8Array.of(9) })),
  );
  const { port } = { port: recorder() };
  caller.open('m', meta, undefined, complete, port.sink);
  t.is(await port.ended, 'fail NotFound x: not found');
});

test('B28 a sender stops at the window and goes on when the receiver has consumed', async (t) => {
  const incoming = Promise.withResolvers<IncomingCall>();
  const { caller } = pair(t, (call) => incoming.resolve(call));
  const { sink, heard, messages } = recorder();
  const open = caller.open('m', meta, undefined, { ...complete, complete: false, single: false }, sink);
  const call = await incoming.promise;
  const got: number[] = [];
  const writable = Promise.withResolvers<void>();
  call.sink = {
    message: (bytes) => got.push(bytes.byteLength),
    end: () => {},
    cancelled: () => {},
    writable: () => writable.resolve(),
  };
  t.true(open.send(new Uint8Array(streamWindow - 1)));
  t.false(open.send(new Uint8Array(2)), 'one message may overdraw');
  while (got.length < 2) await new Promise(setImmediate);
  t.deepEqual(heard, []);
  call.consumed(streamWindow + 1);
  while (heard.length === 0) await new Promise(setImmediate);
  t.deepEqual(heard, ['writable']);
  t.false(call.send(new Uint8Array(streamWindow)));
  while (messages.length === 0) await new Promise(setImmediate);
  open.consumed(streamWindow);
  await writable.promise;
});

test('a call that its callee began on dies with it, one that it did not goes elsewhere', async (t) => {
  const { caller, ports } = pair(t, (call) => {
    if (call.method === 'began') call.dispatch();
    else return;
    ports[1]!.close();
  });
  const began = recorder();
  const waiting = recorder();
  caller.open('began', meta, undefined, complete, began.sink);
  caller.open('waiting', meta, undefined, complete, waiting.sink);
  t.is(await began.ended, 'died Unavailable plugin callee died: unavailable');
  t.is(await waiting.ended, 'undispatched');
  t.is(caller.pending, 0);
});

test('what was answered before the death is still delivered', async (t) => {
  const { caller, ports } = pair(t, (call) => {
    call.dispatch();
    call.reply(Uint8Array.of(7));
    setImmediate(() => ports[1]!.close());
  });
  const { sink, messages, ended } = recorder();
  caller.open('m', meta, undefined, complete, sink);
  t.is(await ended, 'end');
  t.deepEqual(messages, [Uint8Array.of(7)]);
});

test('B24 a cancel reaches the call, and one that overtakes it keeps it from running', async (t) => {
  const cancelled: string[] = [];
  const ran: string[] = [];
  const { caller, callee } = pair(t, (call) => {
    ran.push(call.method);
    call.sink = { message: () => {}, end: () => {}, writable: () => {}, cancelled: () => cancelled.push(call.method) };
  });
  // Control goes first: this cancel is in the same tick as its call.
  caller.open('overtaken', meta, undefined, complete, recorder().sink).cancel();
  const open = caller.open('running', meta, undefined, complete, recorder().sink);
  while (ran.length === 0) await new Promise(setImmediate);
  open.cancel();
  open.cancel();
  while (cancelled.length === 0) await new Promise(setImmediate);
  t.deepEqual(ran, ['running']);
  t.deepEqual(cancelled, ['running']);
  t.is(callee.running, 0);
  t.is(caller.pending, 0);
});

test('a refused call is told so, a moved stream keeps its last cursor', async (t) => {
  const { caller } = pair(t, (call) => {
    if (call.method === 'refuse') call.refuse();
    else {
      call.cursor('41');
      call.moved();
    }
  });
  const refused = recorder();
  caller.open('refuse', meta, undefined, complete, refused.sink);
  t.is(await refused.ended, 'undispatched');
  const moved = recorder();
  caller.open('move', meta, undefined, complete, moved.sink);
  t.is(await moved.ended, 'moved');
  t.deepEqual(moved.heard, ['41']);
});

test('B7 bytes that are no frames close the link and nothing else', async (t) => {
  const { caller, ports } = pair(t, () => {});
  const { sink, ended } = recorder();
  caller.open('m', meta, undefined, complete, sink);
  ports[1]!.postMessage({ p: 1, b: new Uint8Array([255, 255, 255, 255, 0, 0, 0, 0]) });
  t.is(await ended, 'undispatched');
});
