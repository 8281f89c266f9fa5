/** Where the daemon and every command begin: with the kernel's prebuilt image where it is current, else with the sources. */
import { setFlags } from './flags.ts';
import { prebuilt } from './prebuilt/find.ts';

setFlags();
await import(prebuilt([])?.href ?? './run.ts');
