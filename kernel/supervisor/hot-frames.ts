/**
 * What a thread that does not come to rest is doing, found out from outside. Two ways, since each sees what the other does not: a CPU profile finds code that
 * waits in a system call or in Atomics.wait, and says how much of the time goes where, but takes a loop that V8 has replaced while it ran for its caller
 * (measured); stopping the thread in the debugger for a moment names that loop, and never gets hold of one that waits.
 */
import type { WorkerHandle } from './worker-handle.ts';

export interface HotFrames {
  /** Innermost first: `spin (/opt/hello/index.ts:12)`; empty when the thread could not be stopped. */
  readonly stack: readonly string[];
  /** Where its time went: `spin (/opt/hello/index.ts:12) 97 %`; empty when there is no profile. */
  readonly profile: readonly string[];
  /** CPU time it used while it was profiled, as a share: near 0 it waits for something, near 1 it computes. Undefined when it could not be asked. */
  readonly cpu: number | undefined;
}

const stackMs = 1000;
const slackMs = 1000;
const shown = 6;

/** Takes about `profileMs`, and never more than two seconds beyond. */
export async function hotFrames(worker: WorkerHandle['worker'], profileMs = 300): Promise<HotFrames> {
  const stack = await within(stackMs, stackOf(worker.threadId)).catch(() => undefined);
  const began = performance.now();
  const before = await within(slackMs / 2, worker.cpuUsage()).catch(() => undefined);
  const profile = await within(profileMs + slackMs, profileOf(worker, profileMs)).catch(() => undefined);
  const after = before === undefined ? undefined : await within(slackMs / 2, worker.cpuUsage()).catch(() => undefined);
  const used = after === undefined ? undefined : (after.user + after.system - before!.user - before!.system) / 1000;
  return {
    stack: stack ?? [],
    profile: profile ?? [],
    cpu: used === undefined ? undefined : Math.min(1, used / (performance.now() - began)),
  };
}

async function within<T>(ms: number, work: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
    work.catch(() => undefined);
  }
}

interface Profile {
  readonly nodes: readonly { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[];
  readonly samples: readonly number[];
}

async function profileOf(worker: WorkerHandle['worker'], ms: number): Promise<string[]> {
  const taken = await worker.startCpuProfile();
  await new Promise((resolve) => setTimeout(resolve, ms));
  const profile = JSON.parse(String(await taken.stop())) as Profile;
  return topOf(profile);
}

/** Frames by their share of the samples. */
export function topOf({ nodes, samples }: Profile): string[] {
  const hits = new Map<number, number>();
  for (const id of samples) hits.set(id, (hits.get(id) ?? 0) + 1);
  const frames = new Map<string, number>();
  for (const { id, callFrame } of nodes) {
    const count = hits.get(id);
    if (count === undefined || callFrame.functionName === '(idle)') continue;
    const name = frameName(callFrame.functionName, callFrame.url, callFrame.lineNumber);
    frames.set(name, (frames.get(name) ?? 0) + count);
  }
  return [...frames]
    .sort(([, a], [, b]) => b - a)
    .slice(0, shown)
    .map(([name, count]) => `${name} ${Math.round((100 * count) / samples.length)} %`);
}

interface CallFrame {
  readonly functionName: string;
  readonly url: string;
  readonly location: { readonly lineNumber: number };
}

/** Stops the thread where it is, and lets it go on. Resolves never when it waits; give it a deadline. */
async function stackOf(threadId: number): Promise<string[]> {
  // Loaded when it is needed, which is hardly ever.
  const { Session } = await import('node:inspector');
  const session = new Session();
  session.connect();
  // Whatever becomes of it: a debugger that stays attached would keep the thread stopped.
  const timer = setTimeout(() => session.disconnect(), stackMs);
  return new Promise((resolve) => {
    session.on('NodeWorker.attachedToWorker', ({ params: { sessionId, workerInfo } }) => {
      if (workerInfo.workerId !== String(threadId)) return;
      let id = 0;
      const send = (method: string) => {
        id += 1;
        session.post('NodeWorker.sendMessageToWorker', { sessionId, message: JSON.stringify({ id, method }) });
      };
      session.on('NodeWorker.receivedMessageFromWorker', ({ params }) => {
        if (params.sessionId !== sessionId) return;
        const message = JSON.parse(params.message) as { method?: string; params?: { callFrames: CallFrame[] } };
        if (message.method !== 'Debugger.paused') return;
        const frames = message.params?.callFrames ?? [];
        send('Debugger.resume');
        send('Debugger.disable');
        clearTimeout(timer);
        setImmediate(() => session.disconnect());
        resolve(frames.slice(0, shown).map((each) => frameName(each.functionName, each.url, each.location.lineNumber)));
      });
      send('Debugger.enable');
      send('Debugger.pause');
    });
    session.post('NodeWorker.enable', { waitForDebuggerOnStart: false });
  });
}

/** @param line from 0, as V8 counts */
function frameName(name: string, url: string, line: number): string {
  const path = url.startsWith('file://') ? url.slice('file://'.length) : url;
  return path === '' ? name : `${name === '' ? '(anonymous)' : name} (${path}:${line + 1})`;
}
