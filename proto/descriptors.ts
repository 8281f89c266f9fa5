import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { type DescFile, type DescMessage, createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

/** Runs buf in this folder, and its plugins with the node that runs this file. Nothing is fetched. */
export function buf(...args: string[]): void {
  const modules = join(import.meta.dirname, '../node_modules');
  const path = [dirname(process.execPath), join(modules, '.bin'), process.env.PATH].join(delimiter);
  execFileSync(process.execPath, [join(modules, '@bufbuild/buf/bin/buf'), ...args], {
    cwd: import.meta.dirname,
    env: { ...process.env, PATH: path },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
}

/** Runs `use` with a directory of its own below the system's for temporary files, and removes it. */
export function scratch<T>(use: (directory: string) => T): T {
  const directory = mkdtempSync(join(tmpdir(), 'troupe-proto-'));
  try {
    return use(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Descriptors of every .proto in this folder, without google.protobuf's, which are not ours to write down. */
export function descriptors(): DescFile[] {
  const image = scratch((directory) => {
    buf('build', '.', '-o', join(directory, 'image.binpb'));
    return readFileSync(join(directory, 'image.binpb'));
  });
  const files = [...createFileRegistry(fromBinary(FileDescriptorSetSchema, image)).files];
  return files.filter((file) => file.proto.package !== 'google.protobuf');
}

/** All messages of a file, nested ones after the one they are nested in. */
export function messagesOf(file: DescFile): DescMessage[] {
  const withNested = (message: DescMessage): DescMessage[] => [message, ...message.nestedMessages.flatMap(withNested)];
  return file.messages.flatMap(withNested);
}
