/** For tests: one sparse file in every format that there is of them. */
import { entry, pax, paxBody } from './craft.ts';
import { formatRecord } from './pax.ts';

// Sparse files: 1 at 0, 2 at 1000, the end at 2000.
export const sparseBody = Buffer.concat([Buffer.alloc(10, 'a'), Buffer.alloc(20, 'b')]);
export const sparseContent = Buffer.alloc(2000);
sparseBody.copy(sparseContent, 0, 0, 10);
sparseBody.copy(sparseContent, 1000, 10);
export const octal12 = (value: number): string => `${value.toString(8).padStart(11, '0')}\0`;
export const oldMap = (pairs: [number, number][]): string =>
  pairs.map(([offset, length]) => octal12(offset) + octal12(length)).join('');
export const map10 = Buffer.alloc(512);
map10.write('3\n0\n10\n1000\n20\n2000\n0\n');

const record = (key: string, value: string): string => formatRecord(key, Buffer.from(value)).toString('latin1');

export const sparse: Record<string, Buffer> = {
  'old GNU': entry({
    name: 's',
    type: 'S',
    magic: 'ustar  \0',
    body: sparseBody,
    patch: {
      386: oldMap([
        [0, 10],
        [1000, 20],
        [2000, 0],
      ]),
      483: octal12(2000),
    },
  }),
  '0.0': Buffer.concat([
    paxBody(
      record('GNU.sparse.size', '2000') +
        record('GNU.sparse.numblocks', '2') +
        record('GNU.sparse.offset', '0') +
        record('GNU.sparse.numbytes', '10') +
        record('GNU.sparse.offset', '1000') +
        record('GNU.sparse.numbytes', '20'),
    ),
    entry({ name: 's', body: sparseBody }),
  ]),
  '0.1': Buffer.concat([
    pax({
      'GNU.sparse.size': '2000',
      'GNU.sparse.numblocks': '2',
      'GNU.sparse.map': '0,10,1000,20',
      'GNU.sparse.name': 's',
    }),
    entry({ name: 'GNUSparseFile.1/s', body: sparseBody }),
  ]),
  '1.0': Buffer.concat([
    pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '2000', 'GNU.sparse.name': 's' }),
    entry({ name: 'GNUSparseFile.1/s', body: Buffer.concat([map10, sparseBody]) }),
  ]),
};
