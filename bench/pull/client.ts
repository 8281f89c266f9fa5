/** Transfer as our own client drives it: ends in Anys, archives through streams. */
import { open } from 'node:fs/promises';
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
import { namespace } from '../unpack/work.ts';

const platform = { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' };
const unpacks = [{ platform, snapshotter: 'overlayfs' }];
/** Bytes of a piece of an archive. */
const piece = 1 << 20;

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
  const done = new AbortController();
  try {
    const credit = new Credit();
    async function* messages(): AsyncGenerator<Uint8Array> {
      yield Any.encode(pack(StreamInit, { id: 'archive' })).finish();
      const file = await open(archive);
      // The file is read into messages: the client is not what is measured, and has the daemon's processors. One is used again when later ones have been paid for, so of the
      // 2 MiB of credit that the daemon gives none is on its way any more. With more credit it would be, and the import would fail for a wrong digest.
      const buffers = Array.from({ length: 4 }, () => new DataMessage(piece));
      try {
        for (let turn = 0; ; turn = (turn + 1) % buffers.length) {
          const message = buffers[turn]!;
          const { bytesRead } = await file.read(message.data, 0, piece, null);
          if (bytesRead === 0) return;
          await credit.take(bytesRead);
          yield message.encoded(bytesRead);
        }
      } finally {
        await file.close();
      }
    }
    const replies = client
      .duplex(`${StreamingDefinition.fullName}/Stream`, messages(), { signal: done.signal })
      [Symbol.asyncIterator]();
    await replies.next();
    void (async () => {
      for (let next = await replies.next(); next.done !== true; next = await replies.next())
        credit.give(WindowUpdate.decode(Any.decode(next.value).value).update);
    })().catch(() => {});
    await typedClient(client, TransferDefinition).transfer({
      source: pack(ImageImportStream, { stream: 'archive' }),
      destination: pack(ImageStore, {
        extraReferences: [{ name: 'bench', isPrefix: true, allowOverwrite: true }],
        unpacks,
      }),
      options: undefined,
    });
  } finally {
    done.abort();
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

/** An Any that holds a Data, as protobuf has it, with room for the bytes. */
class DataMessage {
  readonly #head: number;
  readonly #room: number;
  readonly #bytes: Buffer;
  readonly data: Buffer;

  constructor(room: number) {
    const none = Any.encode(pack(Data, { data: new Uint8Array(room) })).finish();
    this.#head = none.length - room;
    this.#room = room;
    this.#bytes = Buffer.from(none);
    this.data = this.#bytes.subarray(this.#head);
  }

  /** With the first `length` bytes of `data`; the lengths of what is around them are numbers of one width only for a full message. */
  encoded(length: number): Uint8Array {
    if (length === this.#room) return this.#bytes;
    return Any.encode(pack(Data, { data: this.data.subarray(0, length) })).finish();
  }
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
