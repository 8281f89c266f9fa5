/** Where the daemon and every command begin: with the kernel's prebuilt image where it is current, else with the sources. */
import { prebuilt } from './prebuilt/find.ts';

await import(prebuilt([])?.href ?? './run.ts');
