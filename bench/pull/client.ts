/** Transfer as our own client drives it: ends in Anys, archives through streams. */
import { closeSync, fstatSync, openSync, readvSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { TransferDefinition } from '../../proto/gen/containerd/services/transfer/v1/transfer.ts';
import { StreamInit, StreamingDefinition } from '../../proto/gen/containerd/services/streaming/v1/streaming.ts';
import { ImageExportStream, ImageImportStream } from '../../proto/gen/containerd/types/transfer/archive.ts';
import { ImageStore } from '../../proto/gen/containerd/types/transfer/image_store.ts';
import { OCIRegistry } from '../../proto/gen/containerd/types/transfer/registry.ts';
import { Data, WindowUpdate } from '../../proto/gen/containerd/types/transfer/stream.ts';
import { Any } from '../../proto/gen/google/protobuf/any.ts';
import type { DeepPartial, MessageFns } from '../../proto/message.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { RawClient } from '../raw-client.ts';
import { FramedMessage, type RawStream } from '../raw-stream.ts';
import { namespace } from '../unpack/work.ts';

const platform = { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' };
const unpacks = [{ platform, snapshotter: 'overlayfs' }];
/** Bytes of a piece of an archive: with what is around them they take half of the window that the daemon gives a stream. */
const piece = (512 << 10) - 4096;

function pack<T>(codec: MessageFns<T, string>, message: DeepPartial<T>): Any {
  return { typeUrl: codec.$type, value: codec.encode(codec.fromPartial(message)).finish() };
}

export async function pullByTransfer(address: string, reference: string): Promise<void> {
  const client = new GrpcClient(address, { namespace });
  try {
    await typedClient(client, TransferDefinition).transfer({
      source: pack(OCIRegistry, { reference, resolver: { defaultScheme: 'http' } }),
      destination: pack(ImageStore, { name: reference, platforms: [platform], unpacks }),
      options: undefined,
    });
  } finally {
    client.close();
  }
}

export async function importByTransfer(address: string, archive: string): Promise<void> {
  const client = new GrpcClient(address, { namespace });
  const connection = await RawClient.connect(address);
  try {
    const stream = await connection.open(`${StreamingDefinition.fullName}/Stream`, namespace);
    await stream.send(new FramedMessage(Any.encode(pack(StreamInit, { id: 'archive' })).finish()));
    await stream.receive();
    const sent = sendArchive(stream, archive);
    // It is heard of when the transfer has failed, or has no need of the rest.
    sent.catch(() => {});
    await typedClient(client, TransferDefinition).transfer({
      source: pack(ImageImportStream, { stream: 'archive' }),
      destination: pack(ImageStore, {
        extraReferences: [{ name: 'bench', isPrefix: true, allowOverwrite: true }],
        unpacks,
      }),
      options: undefined,
    });
    await sent;
  } finally {
    connection.close();
    client.close();
  }
}

/** @returns bytes of the archive */
export async function exportByTransfer(address: string, name: string): Promise<number> {
  const client = new GrpcClient(address, { namespace });
  const done = new AbortController();
  let received = 0;
  try {
    const owed: Any[] = [pack(StreamInit, { id: 'archive' }), pack(WindowUpdate, { update: 16 << 20 })];
    let wake = (): void => {};
    async function* messages(): AsyncGenerator<Any> {
      for (;;) {
        const head = owed.shift();
        if (head !== undefined) yield head;
        else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    }
    const replies = typedClient(client, StreamingDefinition)
      .stream(messages(), { signal: done.signal })
      [Symbol.asyncIterator]();
    await replies.next();
    const reading = (async () => {
      for (let next = await replies.next(); next.done !== true; next = await replies.next()) {
        const { length } = Data.decode(next.value.value).data;
        received += length;
        owed.push(pack(WindowUpdate, { update: length }));
        wake();
      }
    })();
    await typedClient(client, TransferDefinition).transfer({
      source: pack(ImageStore, { name }),
      destination: pack(ImageExportStream, { stream: 'archive', platforms: [platform] }),
      options: undefined,
    });
    await Promise.race([reading, sleep(10_000, undefined, { ref: false })]);
    return received;
  } finally {
    done.abort();
    client.close();
  }
}

async function sendArchive(stream: RawStream, archive: string): Promise<void> {
  const credit = new Credit();
  void (async () => {
    for (;;) credit.give(WindowUpdate.decode(Any.decode(await stream.receive()).value).update);
    // The call has ended: sending says so.
  })().catch(() => credit.give(Number.POSITIVE_INFINITY));
  const fd = openSync(archive, 'r');
  try {
    const { size } = fstatSync(fd);
    // One is used again when later ones have been paid for, so of the 2 MiB of credit that the daemon gives none is on its way any more. With more credit it
    // would be, and the import would fail for a wrong digest.
    const messages = Array.from({ length: 4 }, () => dataMessage(piece));
    for (let at = 0, turn = 0; at < size; at += piece, turn = (turn + 1) % messages.length) {
      const length = Math.min(piece, size - at);
      const message = length === piece ? messages[turn]! : dataMessage(length);
      await credit.take(length);
      if (readvSync(fd, message.room) !== length) throw new Error(`${archive} has become shorter`);
      await stream.send(message);
    }
    stream.finish();
  } finally {
    closeSync(fd);
  }
}

/** An Any that holds a Data with room for so many bytes. */
function dataMessage(room: number): FramedMessage {
  const encoded = Any.encode(pack(Data, { data: new Uint8Array(room) })).finish();
  return new FramedMessage(encoded.subarray(0, encoded.length - room), room);
}

class Credit {
  #left = 0;
  #wake = (): void => {};

  give(bytes: number): void {
    this.#left += bytes;
    this.#wake();
  }

  async take(bytes: number): Promise<void> {
    while (this.#left < bytes) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#left -= bytes;
  }
}
