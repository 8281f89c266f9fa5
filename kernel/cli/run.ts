/** The commands that are not the daemon. Each loads what it needs and no more: `--version` and `publish` are run by others while they wait. */
import { join } from 'node:path';
import { helpText } from './help.ts';
import type { GlobalFlags, Invocation } from './arguments.ts';
import { installDir, versionLine } from './version.ts';

/** 0 done, 1 it did not work, 2 it was called wrongly. */
export type ExitCode = number;

export interface Streams {
  out(text: string): void;
  err(text: string): void;
}

/** Plugins that come with the daemon. */
export const builtinPluginDir: string = join(installDir, 'plugins');

/** Runs any command but `daemon`. What fails is told on `err`, in words and without a stack. */
export async function runCommand(
  invocation: Exclude<Invocation, { command: 'daemon' }>,
  streams: Streams,
): Promise<ExitCode> {
  try {
    return await dispatch(invocation, streams);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    streams.err(
      `${message
        .split('\n')
        .map((line) => `trouped: ${line}`)
        .join('\n')}\n`,
    );
    return 1;
  }
}

async function dispatch(invocation: Exclude<Invocation, { command: 'daemon' }>, streams: Streams): Promise<ExitCode> {
  switch (invocation.command) {
    case 'usage error':
      streams.err(`trouped: ${invocation.message}\n\n${helpText()}`);
      return 2;
    case 'help':
      streams.out(helpText(invocation.topic));
      return 0;
    case 'version':
      streams.out(`${versionLine()}\n`);
      return 0;
    case 'publish': {
      const { publishStdin } = await import('./publish.ts');
      const address = await addressOf(invocation.flags);
      await publishStdin(address, invocation.namespace, invocation.topic);
      return 0;
    }
    case 'oci-hook': {
      const { ociHook } = await import('./oci-hook.ts');
      return ociHook(invocation.args);
    }
    case 'plan': {
      const { printPlan } = await import('./plan.ts');
      return printPlan(invocation.flags, streams);
    }
    case 'plugins': {
      if (invocation.action === 'test') {
        const { testFolder } = await import('./test-folder.ts');
        return testFolder(invocation.ids[0]!);
      }
      const { pluginsCommand } = await import('./plugins.ts');
      return pluginsCommand(await addressOf(invocation.flags), invocation, streams);
    }
    case 'registry test': {
      const { testRegistry } = await import('./registry.ts');
      return testRegistry(await addressOf(invocation.flags), invocation, streams);
    }
    case 'content verify': {
      const { verifyContent } = await import('./content.ts');
      return verifyContent(await addressOf(invocation.flags), invocation.drop, streams);
    }
    case 'config reload': {
      const { reloadConfig } = await import('./plugins.ts');
      return reloadConfig(await addressOf(invocation.flags), invocation.dryRun, streams);
    }
    default: {
      const { configCommand } = await import('./config.ts');
      return configCommand(invocation, streams);
    }
  }
}

/** Of the daemon that runs: as it was told, or as the config it was started with tells. */
async function addressOf(flags: GlobalFlags): Promise<string> {
  if (flags.address !== undefined) return flags.address;
  const { loadConfig } = await import('../config/index.ts');
  return loadConfig(flags.config, flags).grpc.address;
}
