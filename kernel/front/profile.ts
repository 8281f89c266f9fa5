/** CPU profiles of all threads at once, in the two forms that DevTools and other viewers open. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type InspectedThread, withThreads } from './threads.ts';

interface ProfileNode {
  readonly id: number;
  readonly callFrame: { functionName: string; scriptId: string; url: string; lineNumber: number; columnNumber: number };
  readonly hitCount?: number;
  readonly children?: readonly number[];
}

/** V8's .cpuprofile. Times are microseconds. */
export interface CpuProfile {
  readonly nodes: readonly ProfileNode[];
  readonly startTime: number;
  readonly endTime: number;
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

export interface ThreadProfile {
  readonly thread: string;
  readonly profile: CpuProfile;
}

/** Threads that do not answer are left out. */
export function profileThreads(ms: number, signal: AbortSignal): Promise<ThreadProfile[]> {
  return withThreads(async (threads) => {
    const running: InspectedThread[] = [];
    await Promise.all(
      threads.map(async (thread) => {
        try {
          await thread.post('Profiler.enable');
          await thread.post('Profiler.start');
          running.push(thread);
        } catch {
          // It is busy with a system call; the others are still worth seeing.
        }
      }),
    );
    await sleep(ms, undefined, { signal }).catch(() => {});
    const profiles: ThreadProfile[] = [];
    await Promise.all(
      running.map(async (thread) => {
        try {
          const { profile } = await thread.post<{ profile: CpuProfile }>('Profiler.stop');
          await thread.post('Profiler.disable');
          profiles.push({ thread: thread.name, profile });
        } catch {
          // It has ended meanwhile.
        }
      }),
    );
    return profiles.sort((a, b) => a.thread.localeCompare(b.thread));
  });
}

/** One profile whose root has a child per thread. Samples of idle threads are left out: what remains is where CPU time went. */
export function merged(profiles: readonly ThreadProfile[]): CpuProfile {
  const nodes: ProfileNode[] = [];
  const samples: { at: number; node: number }[] = [];
  const roots: number[] = [];
  for (const { thread, profile } of profiles) {
    // 1 is the root's own.
    const offset = nodes.length + 1;
    const idle = new Set(
      profile.nodes.filter((node) => node.callFrame.functionName === '(idle)').map((node) => node.id),
    );
    const renumbered = new Map(profile.nodes.map((node, index) => [node.id, offset + 1 + index]));
    for (const node of profile.nodes) {
      const isRoot = node.callFrame.functionName === '(root)';
      nodes.push({
        ...node,
        id: renumbered.get(node.id)!,
        callFrame: isRoot ? { ...node.callFrame, functionName: thread } : node.callFrame,
        children: (node.children ?? []).map((child) => renumbered.get(child)!),
      });
      if (isRoot) roots.push(renumbered.get(node.id)!);
    }
    let at = profile.startTime;
    for (const [index, sample] of profile.samples.entries()) {
      at += profile.timeDeltas[index] ?? 0;
      if (!idle.has(sample)) samples.push({ at, node: renumbered.get(sample)! });
    }
  }
  samples.sort((a, b) => a.at - b.at);
  const startTime = Math.min(...profiles.map(({ profile }) => profile.startTime));
  const root: ProfileNode = {
    id: 1,
    callFrame: { functionName: '(root)', scriptId: '0', url: '', lineNumber: -1, columnNumber: -1 },
    hitCount: 0,
    children: roots,
  };
  return {
    nodes: [root, ...nodes],
    startTime,
    endTime: Math.max(...profiles.map(({ profile }) => profile.endTime)),
    samples: samples.map((sample) => sample.node),
    timeDeltas: samples.map((sample, index) => sample.at - (samples[index - 1]?.at ?? startTime)),
  };
}

/** The trace event format of Chromium, with a track per thread. */
export function traceEvents(profiles: readonly ThreadProfile[]): object {
  const { pid } = process;
  const cat = 'disabled-by-default-v8.cpu_profiler';
  return {
    traceEvents: profiles.flatMap(({ thread, profile }, index) => {
      const tid = index + 1;
      const id = `0x${tid.toString(16)}`;
      const { startTime, timeDeltas, samples } = profile;
      const parents = new Map(
        profile.nodes.flatMap((node) => (node.children ?? []).map((child) => [child, node.id] as const)),
      );
      const nodes = profile.nodes.map(({ id: node, callFrame }) => ({
        id: node,
        callFrame,
        parent: parents.get(node),
      }));
      return [
        { name: 'thread_name', ph: 'M', cat: '__metadata', pid, tid, ts: 0, args: { name: thread } },
        { name: 'Profile', ph: 'P', cat, pid, tid, id, ts: startTime, args: { data: { startTime } } },
        {
          name: 'ProfileChunk',
          ph: 'P',
          cat,
          pid,
          tid,
          id,
          ts: profile.endTime,
          args: { data: { cpuProfile: { nodes, samples }, timeDeltas } },
        },
      ];
    }),
  };
}
