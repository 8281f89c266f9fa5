/**
 * What a thread that does not come to rest is doing, found out from outside by a CPU profile: it finds code that waits in a system call or in Atomics.wait,
 * and says how much of the time goes where, but takes a loop that V8 has replaced while it ran for its caller (measured).
 *
 * Stopping the thread in the debugger for a moment would name that loop too. But an inspector session attaches to every worker of the process, and on a busy
 * machine some of them, also ones that nobody looked at, never come to life or never turn their loop again (Node 26; seen in one of some ninety attachments,
 * and in most starts of a daemon under heavy load): the cure would be the illness.
 */
import type { WorkerHandle } from './worker-handle.ts';

export interface HotFrames {
  /** Where its time went: `spin (/opt/hello/index.ts:12) 97 %`; empty when there is no profile. */
  readonly profile: readonly string[];
  /** CPU time it used while it was profiled, as a share: near 0 it waits for something, near 1 it computes. Undefined when it could not be asked. */
  readonly cpu: number | undefined;
}

/** On a machine that is busy the thread gets to being asked late. */
const slackMs = 3000;
const shown = 6;

/** Takes about `profileMs`, and on a busy machine some seconds more. */
export async function hotFrames(worker: WorkerHandle['worker'], profileMs = 300): Promise<HotFrames> {
  const began = performance.now();
  const before = await within(slackMs / 2, worker.cpuUsage()).catch(() => undefined);
  const profile = await within(profileMs + slackMs, profileOf(worker, profileMs)).catch(() => undefined);
  const after = before === undefined ? undefined : await within(slackMs / 2, worker.cpuUsage()).catch(() => undefined);
  const used = after === undefined ? undefined : (after.user + after.system - before!.user - before!.system) / 1000;
  return {
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
function topOf({ nodes, samples }: Profile): string[] {
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

/** @param line from 0, as V8 counts */
function frameName(name: string, url: string, line: number): string {
  const path = url.startsWith('file://') ? url.slice('file://'.length) : url;
  return path === '' ? name : `${name === '' ? '(anonymous)' : name} (${path}:${line + 1})`;
}
