/**
 * Named points where a test makes the daemon die, fail, panic or wait.
 *
 * `TROUPE_FAILPOINTS="content.commit.rename=kill;images.create.reply=2*error(disk gone)"`. Grammar per point, after containerd's
 * failpoint shim: `<count>*kind(argument)`, joined by `->`; kinds: `off`, `kill` (SIGKILL to the daemon), `error`, `panic` (an exception
 * nobody catches), `delay` (milliseconds, blocking the thread as a slow disk would). Without the variable a point costs one comparison.
 */
import { Failure } from './failure.ts';

interface Action {
  kind: string;
  argument: string;
  count: number;
}

const points = parse(process.env.TROUPE_FAILPOINTS ?? '');

/** Runs what the environment asks for at `name`. Throws Failure('Unknown') for `error`. */
export function failpoint(name: string): void {
  if (points === undefined) return;
  const actions = points.get(name);
  const action = actions?.find((candidate) => candidate.count > 0);
  if (action === undefined) return;
  action.count -= 1;
  perform(name, action);
}

function perform(name: string, action: Action): void {
  switch (action.kind) {
    case 'kill':
      process.kill(process.pid, 'SIGKILL');
      // The signal may take a moment to arrive; nothing after the point may happen in it.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10_000);
      break;
    case 'error':
      throw new Failure('Unknown', action.argument || `failpoint ${name}`);
    case 'panic':
      queueMicrotask(() => {
        throw new Error(action.argument || `failpoint ${name}`);
      });
      break;
    case 'delay':
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(action.argument));
      break;
  }
}

function parse(text: string): Map<string, Action[]> | undefined {
  const result = new Map<string, Action[]>();
  for (const assignment of text.split(';')) {
    const at = assignment.indexOf('=');
    if (at <= 0) continue;
    const actions = assignment
      .slice(at + 1)
      .split('->')
      .map((term) => {
        const match = /^(?:(\d+)\*)?(off|kill|error|panic|delay)(?:\((.*)\))?$/.exec(term.trim());
        if (match === null) throw new Error(`TROUPE_FAILPOINTS: "${term}" is not <count>*kind(argument)`);
        return { count: Number(match[1] ?? Number.POSITIVE_INFINITY), kind: match[2]!, argument: match[3] ?? '' };
      });
    result.set(assignment.slice(0, at).trim(), actions);
  }
  return result.size === 0 ? undefined : result;
}
