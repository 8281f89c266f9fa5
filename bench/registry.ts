/** A real registry on loopback, whose files lie in memory: Debian's docker-registry. It tells how many bytes it has sent. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createReadStream, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { BenchImage, Descriptor, Packing } from './images.ts';
import { leftover } from './leftovers.ts';

export class BenchRegistry {
  readonly #dir = mkdtempSync('/dev/shm/troupe-bench-registry-');
  #child: ChildProcess | undefined;
  #ended: Promise<unknown> = Promise.resolve();
  /** `127.0.0.1:PORT` */
  host = '';
  /** Bytes of all answers' bodies so far. */
  sent = 0;

  async start(): Promise<this> {
    const config = join(this.#dir, 'registry.yml');
    mkdirSync(join(this.#dir, 'store'));
    writeFileSync(
      config,
      `version: 0.1\nlog: { level: info }\nstorage: { filesystem: { rootdirectory: ${JSON.stringify(join(this.#dir, 'store'))} } }\nhttp: { addr: "127.0.0.1:0" }\n`,
    );
    const env = { ...process.env, OTEL_TRACES_EXPORTER: 'none' };
    const child = spawn('docker-registry', ['serve', config], { stdio: ['ignore', 'ignore', 'pipe'], env });
    this.#child = child;
    child.once(
      'exit',
      leftover(() => {
        child.kill('SIGKILL');
        rmSync(this.#dir, { recursive: true, force: true });
      }),
    );
    this.#ended = new Promise((resolve) => child.once('exit', resolve));
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`docker-registry ended with ${code}`)));
      createInterface({ input: child.stderr! }).on('line', (line) => {
        const host = /listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
        if (host !== undefined) this.host = host;
        if (host !== undefined) resolve();
        if (line.includes('response completed'))
          this.sent += Number(/http\.response\.written=(\d+)/.exec(line)?.[1] ?? 0);
      });
    }).catch((error) => {
      rmSync(this.#dir, { recursive: true, force: true });
      throw error;
    });
    return this;
  }

  async stop(): Promise<void> {
    this.#child?.kill('SIGTERM');
    await this.#ended;
    rmSync(this.#dir, { recursive: true, force: true });
  }

  /** @returns its reference in this registry */
  async push(image: BenchImage, packing: Packing): Promise<string> {
    const { config, manifest } = image.packed[packing];
    const document = JSON.parse(readFileSync(manifest, 'utf8')) as { config: Descriptor };
    await this.#upload(image.name, document.config.digest, config);
    for (const { packed } of image.layers)
      await this.#upload(image.name, packed[packing].descriptor.digest, packed[packing].file);
    await this.#send(
      'PUT',
      `/v2/bench/${image.name}/manifests/${packing}`,
      manifest,
      'application/vnd.oci.image.manifest.v1+json',
    );
    return `${this.host}/bench/${image.name}:${packing}`;
  }

  async #upload(name: string, digest: string, file: string): Promise<void> {
    const location = new URL(await this.#send('POST', `/v2/bench/${name}/blobs/uploads/`), `http://${this.host}`);
    location.searchParams.set('digest', digest);
    await this.#send('PUT', `${location.pathname}${location.search}`, file, 'application/octet-stream');
  }

  #send(method: string, path: string, file?: string, type?: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const length = file === undefined ? 0 : statSync(file).size;
      const headers = { 'content-length': length, ...(type !== undefined && { 'content-type': type }) };
      const asked = request(`http://${this.host}${path}`, { method, headers }, (answer) => {
        answer.resume();
        if (answer.statusCode! >= 200 && answer.statusCode! < 300) resolve(answer.headers.location ?? '');
        else reject(new Error(`${method} ${path}: ${answer.statusCode}`));
      });
      asked.once('error', reject);
      if (file === undefined) asked.end();
      else createReadStream(file, { highWaterMark: 1 << 20 }).pipe(asked);
    });
  }
}
