/** What happens to plugins beside their changes of state, for whoever watches. */
import type { HotFrames } from './hot-frames.ts';

export type Incident =
  | {
      readonly t: 'unresponsive';
      readonly worker: string;
      readonly plugins: readonly string[];
      readonly silentMs: number;
      readonly why: string;
      readonly hot: HotFrames;
    }
  | { readonly t: 'responsive'; readonly worker: string; readonly plugins: readonly string[] }
  | { readonly t: 'ended'; readonly worker: string; readonly plugins: readonly string[]; readonly reason: string }
  | { readonly t: 'reload_failed'; readonly plugin: string; readonly stage: string; readonly reason: string };
