/**
 * Makes the images that find.ts finds: `make.ts` where they are missing or their sources have changed, `make.ts --force` in any case. Run by kernel/setup, which has
 * rehearse.ts go through them then.
 *
 * In an image a module still says its own place as `import.meta.url`: threads, libraries and data are found where the sources lie.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import type { Plugin } from 'esbuild';
import { loadManifests, type Manifest } from '../plan/index.ts';
import { resolveTroupe } from '../sdk/resolve.ts';
import { checkout, type Image, imagesDir, type Index, isCurrent, readIndex, type Stamp } from './find.ts';
import { fileURLToPath } from 'node:url';

/** Libraries that go into an image: small, and loaded by every worker or by the kernel. The others are loaded as they are, when they are asked for. */
const taken = /^(?:comlink|msgpackr|smol-toml)(?:\/|$)/;

interface Wanted {
  readonly name: string;
  readonly plugins: readonly Manifest[];
  readonly module?: string;
}

const enterFile = 'kernel/prebuilt/enter.ts';
/** A change of these changes every image. */
const makers = ['kernel/prebuilt/make.ts', enterFile];

const manifests = loadManifests(join(checkout, 'plugins'), join(checkout, 'kernel')).manifests;
const previous = readIndex();
const wanted = wantedImages();
if (process.argv.includes('--force') || previous === undefined || !holds(previous)) {
  const staging = `${imagesDir.slice(0, -1)}.${process.pid}`;
  mkdirSync(staging, { recursive: true });
  try {
    const index = await make(staging);
    if (index !== undefined) {
      writeFileSync(join(staging, 'index.json'), JSON.stringify(index));
      // A daemon that starts in between finds none, and loads the sources.
      rmSync(imagesDir, { recursive: true, force: true });
      renameSync(staging, imagesDir);
    }
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

/** The kernel's, one for each plugin, one for each group that shares a worker in lean mode, and one for each pool that work waits for. */
function wantedImages(): Wanted[] {
  const groups = Map.groupBy(
    manifests.filter(({ thread }) => thread !== undefined),
    ({ thread }) => thread!,
  );
  return [
    { name: 'kernel', plugins: [] },
    ...manifests.map((manifest) => ({ name: basename(manifest.dir), plugins: [manifest] })),
    ...[...groups]
      .map(([name, plugins]) => ({ name: `lean-${name}`, plugins }))
      .filter(({ plugins }) => plugins.length > 1),
    ...['plugins/lib/layer/worker.ts', 'plugins/lib/snapshot/disk.ts'].map((module) => ({
      name: `pool-${basename(dirname(module))}`,
      plugins: [],
      module,
    })),
  ];
}

function holds(index: Index): boolean {
  return (
    index.images.length === wanted.length &&
    wanted.every(({ plugins, module }) => {
      const dirs = plugins.map(({ dir }) => relative(checkout, dir)).join();
      return index.images.some(
        (image) => image.plugins.join() === dirs && image.module === module && isCurrent(index, image),
      );
    })
  );
}

async function make(outdir: string): Promise<Index | undefined> {
  const esbuild = await import('esbuild').catch(() => undefined);
  if (esbuild === undefined) {
    console.error('prebuilt: esbuild is not installed, so the daemon will start from its sources');
    return undefined;
  }
  const files: Stamp[] = [];
  const numbers = new Map<string, number>();
  const number = (path: string): number => {
    const known = numbers.get(path);
    if (known !== undefined) return known;
    const { size, mtimeMs } = statSync(join(checkout, path));
    numbers.set(path, files.length);
    return files.push([path, size, Math.trunc(mtimeMs)]) - 1;
  };
  const images: Image[] = [];
  for (const image of wanted) {
    const { metafile, outputFiles } = await esbuild.build({
      absWorkingDir: checkout,
      entryPoints: [{ in: 'image', out: image.name }],
      outdir,
      bundle: true,
      format: 'cjs',
      define: { 'import.meta.url': '__image' },
      platform: 'node',
      target: 'node26',
      legalComments: 'none',
      logLevel: 'error',
      metafile: true,
      write: false,
      tsconfigRaw: {},
      plugins: [sourcesAsTheyAre(image)],
    });
    for (const { path, text } of outputFiles) writeFileSync(path, asFunction(withoutWideComments(text)));
    const entry = `${image.name}.cjs`;
    const inParentheses = `${JSON.stringify(image.name)}${image.module === undefined ? '' : ', 200'}`;
    writeFileSync(join(outdir, entry), `module.exports = require('./enter.cjs').enter(__dirname, ${inParentheses});\n`);
    const inputs = Object.keys(metafile.inputs)
      .filter((path) => !path.startsWith('image:'))
      .map((path) => relative(checkout, resolve(checkout, path)));
    const plugins = image.plugins.map(({ dir }) => relative(checkout, dir));
    const named = [...plugins.map((dir) => `${dir}/plugin.toml`), 'package-lock.json', ...makers];
    const { module } = image;
    images.push({ entry, plugins, ...(module && { module }), files: [...inputs, ...named].map(number) });
  }
  const { code } = await esbuild.transform(readFileSync(join(checkout, enterFile), 'utf8'), {
    loader: 'ts',
    format: 'cjs',
    target: 'node26',
  });
  writeFileSync(join(outdir, 'enter.cjs'), code);
  return { images, files };
}

/** As enter.ts calls it. */
function asFunction(text: string): string {
  return `(function (require, module, exports, __image, __keep) {${text}\n})`;
}

/**
 * V8 keeps a module's text for as long as the module lives, and a text with one character beyond Latin-1 in two bytes for each: 0.3 to 0.4 MB in every thread.
 * esbuild escapes such characters in code, and leaves comments between the properties of an object; lines keep their numbers.
 */
function withoutWideComments(text: string): string {
  return text.replace(/^ *\/\*\*[\s\S]*?\*\/$/gm, (comment) => comment.replace(/[^\0-\xff]/g, '?'));
}

function sourcesAsTheyAre(image: Wanted): Plugin {
  const { plugins } = image;
  const served = new Set(plugins.flatMap(({ serves }) => Object.keys(serves).map((key) => key.split(' ')[0]!)));
  return {
    name: 'troupe',
    setup(make) {
      make.onResolve({ filter: /^image$/ }, () => ({ path: 'image', namespace: 'image' }));
      make.onLoad({ filter: /.*/, namespace: 'image' }, () => ({ contents: entryOf(image), resolveDir: checkout }));
      make.onResolve({ filter: /^[^./]/ }, ({ path }) => {
        const named = resolveTroupe(path);
        if (named !== undefined) return { path: fileURLToPath(named) };
        return taken.test(path) || path === 'image' ? undefined : { path, external: true };
      });
      make.onLoad({ filter: /\.ts$/ }, ({ path }) => {
        const place = relative(checkout, path);
        let contents = readFileSync(path, 'utf8');
        // Contracts that the image does not serve are loaded from their sources, should one ever be asked for.
        if (place === 'proto/gen/services.ts') {
          contents = contents.replace(
            /^ {2}'([^']+)': .*import\('\.\/([^']+)'\)/gm,
            (line, contract: string, file: string) =>
              served.has(contract) ? line : line.replace(`'./${file}'`, `new URL('./${file}', import.meta.url).href`),
          );
        }
        if (/\bimport\.meta\.(?:url|dirname|filename|main)\b/.test(contents)) {
          contents = `${metaOf(place)}${contents.replace(/\bimport\.meta\.(url|dirname|filename|main)\b/g, '__place.$1')}`;
        }
        return { contents, loader: 'ts' };
      });
    },
  };
}

/** On the first line, so that lines keep their numbers. */
function metaOf(place: string): string {
  const up = JSON.stringify(`../../${place}`);
  return `import { fileURLToPath as __path } from 'node:url'; const __url = new URL(${up}, import.meta.url); const __place = { url: __url.href, filename: __path(__url), dirname: __path(new URL('.', __url)).slice(0, -1), main: false }; `;
}

function entryOf({ plugins, module }: Wanted): string {
  if (module !== undefined) return `export * from './${module}';`;
  if (plugins.length === 0) return `import './kernel/run.ts';`;
  const code = plugins.map(({ dir }) => {
    const path = JSON.stringify(`${relative(checkout, dir)}/index.ts`);
    return `prebuilt.set(new URL('../../' + ${path}, import.meta.url).href, () => import('./' + ${path}));`;
  });
  return [
    `import { prebuilt, rehearsal } from './kernel/sdk/prebuilt.ts';`,
    'rehearsal.keep = __keep;',
    ...code,
    `import './kernel/sdk/worker.ts';`,
  ]
    .join('\n')
    .replaceAll(`'./' + "`, `"./`);
}
