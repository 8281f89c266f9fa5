/** What the worker's own image (kernel/prebuilt) says; nothing where the worker runs from its sources. */
import type { PluginDefinition } from './plugin.ts';

/** Plugins whose code is in it, by the URL of their index.ts: loaded from there and not from the file. */
export const prebuilt = new Map<string, () => Promise<{ default?: PluginDefinition }>>();

/** Keeps what has been compiled by now, in a rehearsal: a thread that is terminated hears of it no other way. */
export const rehearsal = { keep: (): void => {} };
