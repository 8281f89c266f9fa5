/** Which of the images in an index runs where: operating system, architecture and variant, with containerd's names and order of preference. */
import { arch } from 'node:process';

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  /** Empty: the architecture's usual one. */
  readonly variant: string;
}

const architectures: Readonly<Record<string, readonly [string, string]>> = {
  x86_64: ['amd64', ''],
  'x86-64': ['amd64', ''],
  i386: ['386', ''],
  aarch64: ['arm64', ''],
  armhf: ['arm', 'v7'],
  armel: ['arm', 'v6'],
};

/** Other names made the usual ones, and the usual variant none: arm64 is v8, amd64 v1, arm v7. */
export function normalize({ os, architecture, variant }: Platform): Platform {
  const lower = architecture.toLowerCase();
  const [name, implied] = Object.hasOwn(architectures, lower) ? architectures[lower]! : [lower, ''];
  const given = (variant || implied).toLowerCase();
  const plain =
    (name === 'arm64' && (given === '8' || given === 'v8')) || (name === 'amd64' && given === 'v1') ? '' : given;
  return {
    os: os === '' ? 'linux' : os.toLowerCase(),
    architecture: name,
    variant: name === 'arm' ? (plain === '' ? 'v7' : plain.startsWith('v') ? plain : `v${plain}`) : plain,
  };
}

export function hostPlatform(): Platform {
  return normalize({
    os: 'linux',
    architecture: arch === 'x64' ? 'amd64' : arch === 'ia32' ? '386' : arch,
    variant: '',
  });
}

/**
 * How well `found` serves who wants one of `wanted`: 0 best, higher worse, undefined not at all. A later choice comes after all kinds of an earlier one;
 * within a choice, an older variant of the same architecture comes after a newer one (an arm64 machine runs arm v7 too).
 */
export function rank(found: Platform, wanted: readonly Platform[]): number | undefined {
  const target = normalize(found);
  for (const [at, each] of wanted.entries()) {
    const kinds = compatible(normalize(each));
    const kind = kinds.findIndex(
      ({ os, architecture, variant }) =>
        os === target.os && architecture === target.architecture && variant === target.variant,
    );
    if (kind >= 0) return at * 100 + kind;
  }
  return undefined;
}

/** Itself and what runs there as well, best first. */
function compatible(platform: Platform): Platform[] {
  const { os, architecture, variant } = platform;
  const older = (name: string, newest: number, oldest: number): Platform[] =>
    Array.from({ length: Math.max(newest - oldest + 1, 0) }, (_, i) =>
      normalize({ os, architecture: name, variant: `v${newest - i}` }),
    );
  const number = Number(/^v([0-9]+)$/.exec(variant)?.[1] ?? 0);
  switch (architecture) {
    case 'amd64':
      return [...older('amd64', Math.max(number, 1), 1), { os, architecture: '386', variant: '' }];
    case 'arm64':
      return [platform, ...(number > 8 ? [{ os, architecture, variant: '' }] : []), ...older('arm', 8, 5)];
    case 'arm':
      return older('arm', number, 5);
    default:
      return [platform];
  }
}

export function formatPlatform({ os, architecture, variant }: Platform): string {
  return `${os}/${architecture}${variant === '' ? '' : `/${variant}`}`;
}
