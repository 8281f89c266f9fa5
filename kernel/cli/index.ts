/** The command line. `main.ts` parses, runs everything but the daemon through `runCommand`, and starts the daemon from what `prepare` returns. */
export { type GlobalFlags, type Invocation, parseArguments } from './arguments.ts';
export { builtinPluginDir, type ExitCode, runCommand, type Streams } from './run.ts';
export { type DaemonVersion, daemonVersion, installDir, versionLine } from './version.ts';
