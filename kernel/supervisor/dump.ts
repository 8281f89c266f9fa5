/** The state of every thread as text: what SIGUSR1 writes to the log, and what a debug client asks for. */
import type { Supervisor } from './supervisor.ts';

export async function dump(supervisor: Supervisor): Promise<string> {
  const lines = [
    `pid ${process.pid}, up ${process.uptime().toFixed(1)} s, rss ${megabytes(process.memoryUsage.rss())} MB`,
  ];
  const main = process.resourceUsage();
  lines.push(
    `main: user ${(main.userCPUTime / 1000).toFixed(0)} ms, system ${(main.systemCPUTime / 1000).toFixed(0)} ms`,
  );
  for (const unit of supervisor.units) {
    const handle = unit.serving?.handle;
    const stats = await unit.stats().catch((error: unknown) => String(error));
    lines.push(
      `${unit.id}: ${unit.state}${unit.reason === '' ? '' : ` (${unit.reason})`}, generation ${unit.generation}, restarts ${unit.restarts}` +
        `, worker ${handle?.thread ?? '-'}${handle !== undefined && !supervisor.responsive(handle) ? ' UNRESPONSIVE' : ''}`,
    );
    if (typeof stats === 'string') {
      lines.push(`  no statistics: ${stats}`);
      continue;
    }
    if (stats === undefined) continue;
    lines.push(`  running ${stats.running}, queued ${stats.queued}, waiting for others ${stats.pending}`);
    for (const method of stats.methods) {
      if (method.inFlight > 0) lines.push(`  in flight ${method.inFlight} × ${method.method}`);
    }
  }
  for (const { id, reason } of supervisor.plan.skipped) lines.push(`${id}: disabled (${reason})`);
  for (const { id, dir, reason } of supervisor.plan.leftOut) lines.push(`${id}: left out of ${dir} (${reason})`);
  return lines.join('\n');
}

function megabytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
