/** The plan as text, for `trouped plan`: a box-drawn tree of who waits for whom, by whose word. */
import { renderProblem } from '../config/problem.ts';
import type { Dependency, Plan, Refused } from './plan.ts';

export function renderPlan(plan: Plan | Refused): string {
  const warnings = plan.warnings.map((warning) => `warning: ${renderProblem(warning)}`);
  if (!plan.ok) {
    const count = plan.problems.length === 1 ? '1 problem' : `${plan.problems.length} problems`;
    return `${[`${count}, nothing would be started:`, ...plan.problems.map((problem) => `  ${renderProblem(problem)}`), ...warnings].join('\n')}\n`;
  }
  const lines = [`${plan.order.length} plugins start in ${plan.waves.length} waves`];
  for (const [i, wave] of plan.waves.entries()) {
    const lastWave = i === plan.waves.length - 1;
    lines.push(`${lastWave ? '└' : '├'}─ wave ${i + 1}`);
    for (const [j, id] of wave.entries())
      lines.push(...renderPlugin(plan, id, lastWave ? '   ' : '│  ', j === wave.length - 1));
  }
  if (plan.skipped.length > 0)
    lines.push('not started', ...plan.skipped.map(({ id, reason }) => `   ${id}: ${reason}`));
  if (plan.leftOut.length > 0)
    lines.push(
      'left out, something is wrong with them',
      ...plan.leftOut.map(({ id, reason }) => `   ${id}: ${reason}`),
    );
  return `${[...lines, ...warnings].join('\n')}\n`;
}

function renderPlugin(plan: Plan, id: string, indent: string, last: boolean): string[] {
  const manifest = plan.manifests.get(id)!;
  const notes = [
    plan.required.has(id) ? 'required' : '',
    manifest.thread === undefined ? '' : `lean: thread ${manifest.thread}`,
  ].filter((note) => note !== '');
  const children = [
    ...(plan.dependencies.get(id) ?? []).map(renderDependency),
    ...Object.entries(manifest.serves).map(([contract, serve]) => {
      const named = serve.name === undefined ? '' : ` "${serve.name}"`;
      return `serves ${contract}${named} ${serve.version}${serve.public ? ', public' : ''}`;
    }),
  ];
  const deeper = `${indent}${last ? '   ' : '│  '}`;
  return [
    `${indent}${last ? '└' : '├'}─ ${id}${notes.length > 0 ? ` (${notes.join(', ')})` : ''}`,
    ...children.map((child, i) => `${deeper}${i === children.length - 1 ? '└' : '├'}─ ${child}`),
  ];
}

function renderDependency({ kind, on, via }: Dependency): string {
  return via === on ? `${kind} ${on}` : `${kind} ${on} (as ${via})`;
}
