/** Arguments → config → plan → boot → signals → stop in reverse. Whatever is not the daemon is a command of kernel/cli. */
import { parseArguments, runCommand, type Streams } from './cli/index.ts';

// An image of the kernel is no module, so nothing is awaited out here.
void run();

async function run(): Promise<void> {
  const streams: Streams = {
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
  };
  const invocation = parseArguments(process.argv.slice(2));
  if (invocation.command !== 'daemon') {
    // The launcher ignores it, for the daemon's sake; a command ends with its terminal.
    process.on('SIGHUP', () => process.exit(129));
    process.exitCode = await runCommand(invocation, streams);
    return;
  }
  const { runDaemon } = await import('./daemon/daemon.ts');
  try {
    process.exitCode = await runDaemon(invocation.flags, invocation.watch ?? false);
  } catch (error) {
    streams.err(`${error instanceof Error ? error.message : String(error)}\n`.replace(/^(?=.)/gm, 'trouped: '));
    process.exitCode = 1;
  }
}
