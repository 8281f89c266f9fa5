/** Plugins whose code is in the worker's own image (kernel/prebuilt), by the URL of their index.ts: loaded from there and not from the file. */
import type { PluginDefinition } from './plugin.ts';

export const prebuilt = new Map<string, () => Promise<{ default?: PluginDefinition }>>();
