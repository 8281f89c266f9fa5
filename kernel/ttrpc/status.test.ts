import test from 'ava';
import { Status } from 'troupe/proto/google/rpc/status.ts';
import { Failure, type FailureCode, failureCodes } from '../sdk/failure.ts';
import { failureOf, statusOf } from './status.ts';

test('every class survives the way there and back', (t) => {
  for (const code of Object.keys(failureCodes) as FailureCode[]) {
    const status = statusOf(new Failure(code, `m ${code}`));
    t.is(status.code, failureCodes[code]);
    const back = failureOf(Status.decode(Status.encode(status).finish()));
    t.is(back.code, code);
    t.is(back.message, `m ${code}`);
  }
});

test('a number that no class has is Unknown', (t) => {
  for (const code of [17, 99, -1, 2 ** 31 - 1])
    t.is(failureOf(Status.fromPartial({ code, message: 'x' })).code, 'Unknown');
});

test('details travel; foreign bytes in their place are left out', (t) => {
  const status = Status.fromPartial({
    code: 5,
    message: 'gone',
    details: [{ typeUrl: 'a.B', value: new Uint8Array([1, 2]) }],
  });
  const failure = failureOf(status);
  t.deepEqual(statusOf(failure).details, status.details);
  const broken = new Failure('NotFound', 'gone', { details: new Uint8Array([0xff, 0xff, 0xff]) });
  t.deepEqual(statusOf(broken).details, []);
});
