/** Between what shims say and what the Tasks service says. */

import type { StateResponse } from 'troupe/proto/containerd/task/v2/task.ts';
import { Process, Status } from 'troupe/proto/containerd/v1/types/task.ts';

/** Go writes no time at all as year 1; a process that has not exited has that for its end. */
const goZeroTime = { seconds: -62_135_596_800n, nanos: 0 };

/** `id` is the exec's for an exec; containerd leaves `containerId` empty, and clients take `id`. */
export function toProcess(id: string, state: StateResponse): Process {
  return Process.fromPartial({
    id,
    pid: state.pid,
    status: state.status in statusNames ? state.status : Status.UNKNOWN,
    stdin: state.stdin,
    stdout: state.stdout,
    stderr: state.stderr,
    terminal: state.terminal,
    exitStatus: state.exitStatus,
    exitedAt: state.exitedAt ?? goZeroTime,
  });
}

const statusNames: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(Status).map(([name, number]) => [number, name]),
);

/** A process whose shim does not answer: there, and nothing known of it but its pid. */
export function unknownProcess(id: string, pid: number): Process {
  return Process.fromPartial({ id, pid, status: Status.UNKNOWN, exitedAt: goZeroTime });
}
