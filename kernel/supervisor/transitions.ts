/** The states of a plugin and the only arrows between them. ARCHITECTURE.md's picture is drawn from this table. */

export const arrows = {
  declared: ['spawning', 'skipped', 'stopped', 'failed'],
  spawning: ['initializing', 'failed', 'backoff', 'skipped', 'stopped'],
  initializing: ['ready', 'failed', 'backoff', 'skipped', 'stopped'],
  ready: ['suspended', 'draining', 'backoff', 'failed'],
  suspended: ['ready', 'backoff', 'failed', 'draining'],
  draining: ['stopped', 'failed'],
  backoff: ['spawning', 'failed', 'stopped'],
  failed: ['spawning', 'stopped'],
  skipped: ['spawning', 'stopped'],
  stopped: ['spawning'],
} as const;

export type PluginState = keyof typeof arrows;

export interface Transition {
  readonly slot: string;
  readonly generation: number;
  readonly from: PluginState;
  readonly to: PluginState;
  readonly reason: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

export function allowed(from: PluginState, to: PluginState): boolean {
  return (arrows[from] as readonly PluginState[]).includes(to);
}
